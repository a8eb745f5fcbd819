"""The connection of a session, in an event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rpclib_zmq.protocol import zmtp
from rpclib_zmq.protocol.records import FLUSH_AT, LARGE, Broken
from rpclib_zmq.protocol.wire import Wire
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.session.taken import Taken

_MANY = 3 * 32
"""Pieces after which a batch is sent before the end of the turn, so that the receiver starts early."""
_ONE_MESSAGE = 3
"""Pieces of one message."""
_LONGEST = 1 << 30
"""Bytes of a frame, at most. The receiver has a stricter limit of its own."""


class Channel:
    """One connection to the receiver that listens at ``path``. A channel never reconnects.

    ``on_batch(frame)`` gets the first frame of each message. ``on_end(what)`` is called once when the connection
    ends, after all batches, with what the receiver did.

    Records emitted within one loop turn leave in few batches: at the end of the turn, earlier when a batch is long
    enough, and at once when messages come one by one.
    """

    def __init__(
        self,
        path: Path,
        on_batch: Callable[[bytes], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._on_end = on_end
        self.taken = Taken()
        """Taken messages, reported along with the next batch."""
        self._frames: deque[Frame] = deque()
        self._out: list[bytes] = []
        self._large: list[bytes] = []
        self._size = 0
        self._turning = False
        self._quiet = True
        """Whether messages come one by one. The first of a turn is then sent at once."""
        self._closed = False
        self._ended = False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        failed = connection.connect_ex(os.fsencode(path))
        self._wire = Wire(connection, b"DEALER", self._on_message, self._watch, _LONGEST)
        if failed:
            self._loop.call_soon(self._end, "cannot be reached")
        else:
            self._loop.add_reader(self._wire.fileno(), self._readable)

    def greet(self, head: bytes, payload: bytes) -> None:
        """Send a header and its payload as one message."""
        self._wire.send((head, payload))

    def send_record(self, record: bytes) -> None:
        """Send one record at the end of the turn. Never waits or fails: ``on_end`` reports a lost connection."""
        self._out.append(record)
        self._size += len(record)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        if self._size >= FLUSH_AT:
            self.flush()

    def emit(self, head: bytes, body: bytes, name: bytes) -> None:
        """Send one record at the end of the turn, or earlier. Never waits or fails."""
        out = self._out
        if len(body) < LARGE:
            out += (head, body, name)
        else:
            out += (head, name)
            self._large.append(body)
        self._size += len(head) + len(body) + len(name)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
            if self._quiet:
                self.flush()
        elif self._size >= FLUSH_AT or len(out) >= _MANY:
            self.flush()

    def flush(self) -> None:
        """Send the batch."""
        if not self._out or self._closed:
            return
        self._out += self.taken.records()
        frames = [b"".join(self._out), *self._large]
        self._out.clear()
        self._large.clear()
        self._size = 0
        self._wire.send(frames)

    def frame(self) -> bytes:
        """The next frame of the message whose first frame ``on_batch`` got. Raises Broken if none is left."""
        if not self._frames:
            raise Broken("a frame is missing")
        return bytes(self._frames.popleft())

    def close(self, linger: float = 0.0) -> None:
        """Close after writing unsent data for up to ``linger`` seconds. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._wire.fileno())
            self._watch(False)
            self._wire.close(linger)

    def _turn(self) -> None:
        self._turning = False
        self._quiet = len(self._out) <= _ONE_MESSAGE
        self.flush()

    def _readable(self) -> None:
        wire = self._wire
        try:
            if not wire.read() and wire.ended:
                self._end("went away")
        except zmtp.Malformed as error:
            self._end(f"sent {error}")

    def _on_message(self, frames: list[Frame]) -> None:
        if not self._closed:
            if len(frames) > 1:
                self._frames = deque(frames[1:])
            self._on_batch(bytes(frames[0]))
            if not self._turning:  # flush at the end of the next turn, when the woken tasks have sent
                self._turning = True
                self._loop.call_soon(self._turn)

    def _watch(self, wanted: bool) -> None:
        if wanted:
            self._loop.add_writer(self._wire.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._wire.fileno())

    def _writable(self) -> None:
        if not self._wire.write():
            self._watch(False)

    def _end(self, what: str) -> None:
        if not self._closed and not self._ended:
            self._ended = True
            self._loop.remove_reader(self._wire.fileno())
            self._on_end(what)
