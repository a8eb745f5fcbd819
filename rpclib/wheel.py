"""Deadlines of many calls with one timer.

Almost every call ends long before its deadline, so a timer each is waste: a call is put into a bucket of 0.1 s
and taken out when it ends (0.3 us instead of 1.5). Only what is still there when its bucket comes up gets an
exact timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

_PER_SECOND = 10


class Expiring(Protocol):
    id: bytes
    deadline: float
    """On the loop's clock."""
    timer: asyncio.TimerHandle | None
    """Belongs to the wheel."""


T = TypeVar("T", bound=Expiring)


class Wheel(Generic[T]):
    """Calls ``expire(item)`` at the deadline of each item that was not removed before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[T], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._buckets: dict[int, dict[bytes, T]] = {}
        self._next = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        number = int(item.deadline * _PER_SECOND)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            if self._timer is None or number < self._next:
                self._arm(number)
        bucket[item.id] = item

    def remove(self, item: T) -> None:
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
            return
        number = int(item.deadline * _PER_SECOND)
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.pop(item.id, None)
            if not bucket:
                del self._buckets[number]  # it may be hours until it would come up

    def close(self) -> None:
        """Forget what waits in buckets. Items past theirs have timers of their own: `remove` those first."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buckets.clear()

    def _arm(self, number: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = number
        self._timer = self._loop.call_at(number / _PER_SECOND, self._turn)

    def _turn(self) -> None:
        for item in self._buckets.pop(self._next, {}).values():
            item.timer = self._loop.call_at(item.deadline, self._expire, item)
        self._timer = None
        if self._buckets:
            self._arm(min(self._buckets))
