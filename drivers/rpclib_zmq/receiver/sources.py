"""What the receiver waits for: zmq sockets and file descriptors."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import zmq
from zmq.backend import zmq_poll

from rpclib_zmq.channel import descriptor

_POLLIN = int(zmq.POLLIN)


class Sources:
    """Handlers, and the sockets and descriptors whose news they are called for.

    zmq's own poller asks each socket several times around every sleep. The descriptor of a zmq socket is readable
    only until zmq has been asked, by sending too: so a socket is asked before each sleep, and after it believed.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: list[tuple[list[tuple[Any, int]], Callable[[], None]]] = []
        self._files: dict[int, Callable[[], None]] = {}

    def add(self, source: zmq.Socket[bytes] | int, handler: Callable[[], None]) -> None:
        """Call ``handler`` when ``source`` has something to read; of a socket, also when it may have."""
        if isinstance(source, int):
            file = source
        else:
            file = descriptor(source)
            self._sockets.append(([(source, _POLLIN)], handler))
        self._files[file] = handler
        self._epoll.register(file, select.EPOLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for something to read and call the handlers. False: it had to be waited for."""
        ready = {handler: True for socket, handler in self._sockets if zmq_poll(socket, 0)}
        at_once = bool(ready)
        for file, _ in self._epoll.poll(0 if at_once else seconds):
            ready[self._files[file]] = True
        for handler in ready:
            handler()
        return at_once

    def close(self) -> None:
        self._epoll.close()
