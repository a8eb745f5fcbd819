"""Noticing that the receiver is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICK = 0.5
_SILENT_TICKS = 8
"""Heartbeats without an answer after which the receiver is given up. Counted, not timed: a blocked loop must not
condemn a healthy receiver."""


class Pulse:
    """Calls ``ping`` every half second, and ``on_silence`` when nothing was heard for several of them."""

    def __init__(self, ping: Callable[[], None], on_silence: Callable[[], None]) -> None:
        self.silent = 0
        """Heartbeats since something was heard: whoever hears something sets it to 0."""
        self._ping = ping
        self._on_silence = on_silence
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.silent += 1
        if self.silent > _SILENT_TICKS:
            self._on_silence()
            return
        self.start()
        self._ping()
