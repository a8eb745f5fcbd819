"""Signals and ends of processes, as events of the receiver."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable


class Watch:
    """One file descriptor, readable when `handle` has something to do. Use in the main thread, close once."""

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._epoll = select.epoll()
        self._on_death: dict[int, Callable[[], None]] = {}
        self._on_signal = on_signal
        self._signals, self._raised = socket.socketpair()
        self._signals.setblocking(False)
        self._raised.setblocking(False)
        self._epoll.register(self._signals.fileno(), select.EPOLLIN)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(self._raised.fileno())

    def fileno(self) -> int:
        return self._epoll.fileno()

    def process(self, pid: int, on_death: Callable[[], None]) -> Callable[[], None] | None:
        """Call ``on_death`` when the process ends. Returns a function that ends the watch; None if there is none.

        Raises ProcessLookupError when the process has ended.
        """
        if pid <= 0:  # a process of another pid namespace
            return None
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            raise
        except OSError:
            return None
        self._on_death[handle] = on_death
        self._epoll.register(handle, select.EPOLLIN)

        def unwatch() -> None:
            if self._on_death.pop(handle, None) is not None:
                self._epoll.unregister(handle)
                os.close(handle)

        return unwatch

    def handle(self) -> None:
        """Call the handlers of pending signals and ended processes."""
        for handle, _ in self._epoll.poll(0):
            if handle == self._signals.fileno():
                for number in self._signals.recv(64):
                    self._on_signal(number)
            elif (on_death := self._on_death.get(handle)) is not None:
                on_death()

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._epoll.close()
        for handle in self._on_death:
            os.close(handle)
        self._signals.close()
        self._raised.close()
