"""The socket of a session, in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import zmq
from zmq.backend import zmq_poll

from rpclib_zmq.records import FLUSH_AT, LARGE

_NB = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_FD = int(zmq.FD)
_POLLIN = int(zmq.POLLIN)
_END = zmq.Event.DISCONNECTED | zmq.Event.CLOSED | zmq.Event.CONNECT_RETRIED
_MANY = 3 * 32
"""Pieces gathered that are sent before the turn ends, so that others begin with them while this one goes on."""
_ONE_MESSAGE = 3
"""Pieces."""


class Channel:
    """One connection to the receiver. It never reconnects: a DEALER that does replays old messages to a stranger.

    ``on_batch(frame)`` is called for the first frame of each message, ``on_end()`` once when the connection ends,
    after everything that had arrived. ``along()`` gives the records that go along with a batch that goes anyway.

    What is emitted within a loop turn leaves in few batches: at its end, whenever much was gathered, and at once
    where messages come one by one.
    """

    def __init__(
        self,
        endpoint: str,
        on_batch: Callable[[bytes], None],
        on_end: Callable[[], None],
        along: Callable[[], list[bytes]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_batch = on_batch
        self._on_end = on_end
        self._along = along
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.RECONNECT_IVL, -1)):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(_END)
        self._send = super(zmq.Socket, self._socket).send  # past a wrapper that costs more than the sending
        self._recv = self._socket.recv
        self._out: list[bytes] = []
        self._large: list[bytes] = []
        self._size = 0
        self._turning = False
        self._quiet = True
        """Messages come one by one: the first of a turn need not wait for others."""
        self._closed = False
        self._ended = False
        self._look = [(self._socket, _POLLIN)]
        self._handles = (descriptor(self._socket), descriptor(self._monitor))
        self._loop.add_reader(self._handles[0], self._readable)
        self._loop.add_reader(self._handles[1], self._watch)
        self._socket.connect(endpoint)
        self._loop.call_soon(self._watch)  # zmq only wakes a reader that has looked and found nothing

    def greet(self, head: bytes, payload: bytes) -> None:
        """Send a header with its payload, as a message of its own."""
        self._hand_over([head, payload])
        self._turn_soon()

    def say(self, record: bytes) -> None:
        """Send one record when the turn ends. Never waits, nor fails: ``on_end`` tells of a lost connection."""
        self._out.append(record)
        self._size += len(record)
        self._turn_soon()
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
        """Hand what was gathered to zmq."""
        if not self._out or self._closed:
            return
        self._out += self._along()
        frames = [b"".join(self._out), *self._large]
        self._out.clear()
        self._large.clear()
        self._size = 0
        self._hand_over(frames)

    def _hand_over(self, frames: list[bytes]) -> None:
        last = frames.pop()
        try:
            for frame in frames:
                self._send(frame, _MORE)
            self._send(last, _NB)
        except zmq.Again:
            self._end()

    def frame(self) -> bytes:
        """The next frame of the message of which ``on_batch`` got the first."""
        return self._recv(_NB)

    def close(self, linger: int = 0) -> None:
        """Close, dropping what zmq has not sent within ``linger`` milliseconds. Idempotent."""
        if not self._closed:
            self._closed = True
            for handle in self._handles:
                self._loop.remove_reader(handle)
            self._socket.disable_monitor()
            self._context.destroy(linger=linger)

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _readable(self) -> None:
        if not self._turning:  # else it is about to ask
            with contextlib.suppress(zmq.Again):
                self._read()

    def _turn(self) -> None:
        """Send what was gathered and read one message.

        The descriptor is readable only until zmq has been asked, by sending too. So each turn asks and, until there
        is nothing, is followed by another: after everything that was caused by what it read.
        """
        self._turning = False
        if self._closed:
            return
        self._quiet = len(self._out) <= _ONE_MESSAGE
        self.flush()
        if not self._closed and self._arrived():
            self._read()

    def _arrived(self) -> bool:
        return bool(zmq_poll(self._look, 0))

    def _read(self) -> None:
        data = self._recv(_NB)
        self._turning = True
        try:
            self._on_batch(data)
        finally:
            self._loop.call_soon(self._turn)

    def _watch(self) -> None:
        """The monitor socket has something to say, and it only ever says one thing."""
        if self._closed or not zmq_poll([(self._monitor, _POLLIN)], 0):
            return
        while self._arrived():
            self._read()
            if self._closed:
                return
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._on_end()


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """The file descriptor that tells of a socket's news."""
    file = socket.getsockopt(_FD)
    assert isinstance(file, int)
    return file
