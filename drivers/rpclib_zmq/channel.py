"""The connection of a session, in an event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from rpclib_zmq import zmtp
from rpclib_zmq.records import FLUSH_AT, LARGE, Broken
from rpclib_zmq.wire import Wire
from rpclib_zmq.zmtp import Frame

_MANY = 3 * 32
"""Pieces gathered that are sent before the turn ends, so that others begin with them while this one goes on."""
_ONE_MESSAGE = 3
"""Pieces."""
_LONGEST = 1 << 30
"""Bytes of a frame: the receiver keeps to its own bound."""


class Channel:
    """One connection to the receiver that listens at ``path``. It is never made again.

    ``on_batch(frame)`` is called for the first frame of each message, ``on_end(what)`` once when the connection
    ends, after everything that had arrived, with what the receiver did. ``along()`` gives the records that go along
    with a batch that goes anyway.

    What is emitted within a loop turn leaves in few batches: at its end, whenever much was gathered, and at once
    where messages come one by one.
    """

    def __init__(
        self,
        path: Path,
        on_batch: Callable[[bytes], None],
        on_end: Callable[[str], None],
        along: Callable[[], list[bytes]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._on_end = on_end
        self._along = along
        self._frames: deque[Frame] = deque()
        self._out: list[bytes] = []
        self._large: list[bytes] = []
        self._size = 0
        self._turning = False
        self._quiet = True
        """Messages come one by one: the first of a turn need not wait for others."""
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
        """Send a header with its payload, as a message of its own."""
        self._wire.send((head, payload))

    def say(self, record: bytes) -> None:
        """Send one record when the turn ends. Never waits, nor fails: ``on_end`` tells of a lost connection."""
        self._out.append(record)
        self._size += len(record)
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
        if self._size >= FLUSH_AT:
            self.flush()

    def emit(self, head: bytes, body: bytes, name: bytes) -> None:
        """Send one record when the turn ends, or earlier. Never waits, nor fails."""
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
        """Write what was gathered."""
        if not self._out or self._closed:
            return
        self._out += self._along()
        frames = [b"".join(self._out), *self._large]
        self._out.clear()
        self._large.clear()
        self._size = 0
        self._wire.send(frames)

    def frame(self) -> bytes:
        """The next frame of the message of which ``on_batch`` got the first. Raises Broken when there is none."""
        if not self._frames:
            raise Broken("a frame is missing")
        return bytes(self._frames.popleft())

    def close(self, linger: float = 0.0) -> None:
        """Close, waiting up to ``linger`` seconds until what was sent is out. Idempotent."""
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
            if not self._turning:  # whom that woke sends in the next turn: at the end of it, not a turn later
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
