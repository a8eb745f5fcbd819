"""The clock of a loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The cheapest function that returns the time of ``loop``: for asyncio's own loops, the one that they call.

    Deadlines and ages that are read from it follow a loop in virtual time.
    """
    return monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
