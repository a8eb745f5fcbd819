"""Heartbeats to the receiver.

The PINGs tell the receiver that the program runs: it delivers nothing to a program that has stopped. The core has a
liveness check of its own, which needs an inbox; a silent receiver is noticed here also in a session without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICK = 0.5
_SILENT_TICKS = 8
"""Ticks of silence after which the receiver counts as dead. Ticks are counted rather than timed, so that a blocked
event loop does not end the session with a healthy receiver."""


class Heartbeat:
    """Calls ``ping`` every half second, and ``on_silence`` after several ticks of silence."""

    def __init__(self, ping: Callable[[], None], on_silence: Callable[[], None]) -> None:
        self.silent = 0
        """Ticks since the last batch. The session sets it to 0 for each batch."""
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
