"""A loop whose clock stands still while there is work, and jumps to the next timer when there is none."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Tells the loop how long nothing would happen, instead of waiting."""

    loop: ClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer is due: something from outside has to happen
            return super().select(None)
        ready = super().select(0)
        if not ready and timeout > 0:
            self.loop.now += timeout
        return ready


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time: ``asyncio.run(main(), loop_factory=...)`` or `run`.

    A program of one process on ``fake://`` needs no real time on it: sleeping for an hour takes none. Programs with
    threads, sockets or other processes should not use it, since their work takes real time.
    """

    def __init__(self) -> None:
        self.now = 0.0
        """The time of the loop, in seconds. It may be advanced by hand."""
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Any) -> Any:
    """The result of the coroutine ``main``, run on a loop in virtual time."""
    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        return runner.run(main)
