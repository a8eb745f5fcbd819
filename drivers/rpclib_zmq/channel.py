"""The socket of a session, in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

_NB = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)
_BATCH = 256
_END = zmq.Event.DISCONNECTED | zmq.Event.CLOSED | zmq.Event.CONNECT_RETRIED


class Channel:
    """One connection to the receiver. It never reconnects: a DEALER that does replays old messages to a stranger.

    ``on_message(header, payload)`` is called for each message, ``on_end()`` once when the connection ends, after
    everything that had arrived.
    """

    def __init__(
        self, endpoint: str, on_message: Callable[[bytes, bytes], None], on_end: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.RECONNECT_IVL, -1)):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(_END)
        self._send = self._socket.send
        self._recv = self._socket.recv
        self._due = False
        self._closed = False
        self._handles = (_number(self._socket, zmq.FD), _number(self._monitor, zmq.FD))
        self._loop.add_reader(self._handles[0], self._read)
        self._loop.add_reader(self._handles[1], self._watch)
        self._socket.connect(endpoint)
        self._loop.call_soon(self._watch)  # zmq only wakes a reader that has looked and found nothing

    def send(self, head: bytes, payload: bytes = b"") -> bool:
        """Send one message. False: the connection has ended. Never waits."""
        try:
            self._send(head, _MORE)
            self._send(payload, _NB)
        except zmq.Again:
            return False
        if not self._due:  # sending may swallow the wake-up for what arrived meanwhile: look again
            self._due = True
            self._loop.call_soon(self._read)
        return True

    def close(self, linger: int = 0) -> None:
        """Close, dropping what zmq has not sent within ``linger`` milliseconds. Idempotent."""
        if not self._closed:
            self._closed = True
            for handle in self._handles:
                self._loop.remove_reader(handle)
            self._socket.disable_monitor()
            self._context.destroy(linger=linger)

    def _read(self) -> None:
        self._due = False
        if self._closed:
            return
        recv, on_message = self._recv, self._on_message
        for _ in range(_BATCH):
            try:
                head = recv(_NB)
            except zmq.Again:
                return
            on_message(head, recv(_NB))
            if self._closed:
                return
        self._due = True
        self._loop.call_soon(self._read)

    def _watch(self) -> None:
        """The monitor socket has something to say, and it only ever says one thing."""
        if self._closed or not _number(self._monitor, zmq.EVENTS) & zmq.POLLIN:
            return
        while self._due or _number(self._socket, zmq.EVENTS) & zmq.POLLIN:
            self._read()
            if self._closed:
                return
        self._on_end()


def _number(socket: zmq.Socket[bytes], option: int) -> int:
    value = socket.getsockopt(option)
    assert isinstance(value, int)
    return value
