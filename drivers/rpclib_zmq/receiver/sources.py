"""Event sources of the receiver: zmq sockets and file descriptors."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import zmq
from zmq.backend import zmq_poll

_POLLIN = int(zmq.POLLIN)
_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_BOTH = _IN | _OUT


class Sources:
    """Handlers of sockets and file descriptors.

    The poller of zmq checks each socket several times for every sleep. Here each zmq socket is checked once, before
    the sleep, because sending also resets its file descriptor. After the sleep the descriptor alone decides.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: list[tuple[list[tuple[Any, int]], Callable[[], object]]] = []
        self._files: dict[int, Callable[[], object]] = {}
        self._writable: dict[int, Callable[[], object]] = {}

    def add(self, source: zmq.Socket[bytes] | int, handler: Callable[[], object]) -> None:
        """Call ``handler`` when ``source`` is readable. A zmq socket may turn out to have nothing."""
        if isinstance(source, int):
            file = source
        else:
            file = _descriptor(source)
            self._sockets.append(([(source, _POLLIN)], handler))
        self._files[file] = handler
        self._epoll.register(file, _IN)

    def remove(self, file: int) -> None:
        """Remove the handlers of a file descriptor."""
        if self._files.pop(file, None) is not None:
            self._writable.pop(file, None)
            self._epoll.unregister(file)

    def when_writable(self, file: int, handler: Callable[[], object] | None) -> None:
        """Call ``handler`` whenever the added ``file`` is writable; None: stop."""
        if handler is not None:
            self._writable[file] = handler
            self._epoll.modify(file, _BOTH)
        elif self._writable.pop(file, None) is not None:
            self._epoll.modify(file, _IN)

    def wait(self, seconds: float) -> None:
        """Wait up to ``seconds`` for events and call their handlers."""
        ready = {handler: True for socket, handler in self._sockets if zmq_poll(socket, 0)}
        events = self._epoll.poll(0 if ready else seconds)
        for handler in ready:
            handler()
        for file, event in events:
            if event & _OUT and (write := self._writable.get(file)) is not None:
                write()
            if event & ~_OUT and (read := self._files.get(file)) is not None and read not in ready:
                read()

    def close(self) -> None:
        self._epoll.close()


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    """The file descriptor that signals events of a zmq socket."""
    file = socket.getsockopt(zmq.FD)
    assert isinstance(file, int)
    return file
