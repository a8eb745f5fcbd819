"""The wheel: each item expires once, at its deadline, unless it was removed; nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from rpclib.wheel import Wheel


class Clock:
    """A loop whose time is told to it. Handles run in the order of their time, late ones at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[Handle] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, function: Callable[..., None], *args: Any) -> Handle:
        self.made += 1
        self.due.append(Handle(self, when, lambda: function(*args)))
        return self.due[-1]

    def run_until(self, when: float) -> None:
        while pending := [handle for handle in self.due if handle.when <= when]:
            handle = min(pending, key=lambda one: one.when)
            self.due.remove(handle)
            self.now = max(self.now, handle.when)
            handle.run()
        self.now = when


class Handle:
    def __init__(self, clock: Clock, when: float, run: Callable[[], None]) -> None:
        self.clock, self.when, self.run = clock, when, run

    def cancel(self) -> None:
        if self in self.clock.due:
            self.clock.due.remove(self)


class Item:
    def __init__(self, number: int, deadline: float) -> None:
        self.id = number.to_bytes(16, "big")
        self.deadline = deadline
        self.timer: asyncio.TimerHandle | None = None


def wheel() -> tuple[Clock, Wheel[Item], list[tuple[float, Item]]]:
    clock, expired = Clock(), list[tuple[float, Item]]()
    made: Wheel[Item] = Wheel(clock, lambda item: expired.append((clock.now, item)))  # type: ignore[arg-type]
    return clock, made, expired


def test_each_expires_at_its_deadline_whatever_the_order() -> None:
    clock, made, expired = wheel()
    chance = random.Random(1)
    items = [Item(number, 1000 + chance.uniform(0, 20)) for number in range(300)]
    for item in items:
        made.add(item)
    clock.run_until(1030)
    assert sorted(expired, key=lambda pair: pair[1].id) == [(item.deadline, item) for item in items]


def test_removed_ones_do_not_expire_and_leave_nothing() -> None:
    clock, made, expired = wheel()
    for number in range(1000):
        item = Item(number, clock.now + 3600)
        made.add(item)
        clock.run_until(clock.now + 0.1)
        made.remove(item)
        assert not made._buckets, "a bucket stays until its deadline, hours from now"
    assert not expired
    clock.run_until(clock.now + 4000)
    assert not expired
    assert not clock.due


def test_one_timer_serves_all() -> None:
    clock, made, _ = wheel()
    items = [Item(number, clock.now + 60 + number / 1e6) for number in range(1000)]
    for item in items:
        made.add(item)
    for item in items:
        made.remove(item)
    assert clock.made == 1


def test_an_earlier_one_moves_the_timer() -> None:
    clock, made, expired = wheel()
    late, early = Item(1, 1050.0), Item(2, 1001.05)
    made.add(late)
    made.add(early)
    clock.run_until(1002)
    assert expired == [(1001.05, early)]
    clock.run_until(1051)
    assert expired[1:] == [(1050.0, late)]


def test_a_deadline_that_is_over_expires_at_once() -> None:
    clock, made, expired = wheel()
    item = Item(1, 999.0)
    made.add(item)
    clock.run_until(1000.0)
    assert expired == [(1000.0, item)]


def test_removal_between_bucket_and_deadline() -> None:
    clock, made, expired = wheel()
    item, other = Item(1, 1001.05), Item(2, 1001.06)
    made.add(item)
    made.add(other)
    clock.run_until(1001.01)
    assert item.timer is not None
    made.remove(item)
    made.remove(item)
    assert item.timer is None
    clock.run_until(1002)
    assert [one for _, one in expired] == [other]


def test_close_forgets() -> None:
    clock, made, expired = wheel()
    made.add(Item(1, 1001))
    made.close()
    made.close()
    clock.run_until(1010)
    assert (expired, clock.due) == ([], [])


async def test_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    expired: asyncio.Queue[Item] = asyncio.Queue()
    made: Wheel[Item] = Wheel(loop, expired.put_nowait)
    item = Item(1, loop.time() + 0.05)
    made.add(item)
    assert await asyncio.wait_for(expired.get(), 5) is item
    assert loop.time() >= item.deadline - 0.001
