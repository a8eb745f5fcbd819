"""Deadlines: each call ends once, at its own, unless it was removed; few timers serve many calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.calling.calls import Call, Calls
from rpclib.link.sender import Sender
from tests.support.links import unconnected

ADDRESS = Address(Kind.ONE, "rpclib", "t")


class Clock:
    """A loop whose time is told to it. Handles run in the order of their time, late ones at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[Handle] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[..., None], *args: Any) -> Handle:
        self.made += 1
        self.due.append(Handle(self, self.now + delay, lambda: function(*args)))
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


class Promise:
    """The future of a call: it notes when it was told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ended: float | None = None

    def done(self) -> bool:
        return self.ended is not None

    def set_exception(self, error: Exception) -> None:
        assert isinstance(error, rpclib.CallTimeout)
        self.ended = self.clock.now


class Table:
    """Calls on a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._link = unconnected(self.clock)
        self.calls = Calls(self._link)
        self._numbers = iter(range(1 << 30))

    def add(self, deadline: float) -> Call:
        ident = next(self._numbers).to_bytes(16, "big")
        future: Any = Promise(self.clock)
        call = Call(ident, Sender(self._link, ADDRESS), "boot", future, self.clock.now, deadline, 1.0)
        self.calls.add(call)
        return call

    @staticmethod
    def ended(call: Call) -> float | None:
        future: Any = call.future
        return future.ended  # type: ignore[no-any-return]


@pytest.fixture
def table() -> Table:
    return Table()


def test_each_ends_at_its_deadline_whatever_the_order(table: Table) -> None:
    chance = random.Random(1)
    calls = [table.add(1000 + chance.uniform(0, 20)) for _ in range(300)]
    table.clock.run_until(1030)
    assert [table.ended(call) for call in calls] == pytest.approx([call.deadline for call in calls])


def test_calls_that_come_and_go_are_not_forgotten_nor_ended_early(table: Table) -> None:
    chance = random.Random(2)
    open_calls: list[Call] = []
    removed: list[Call] = []
    kept: list[Call] = []
    for _ in range(3000):
        table.clock.run_until(table.clock.now + chance.expovariate(20))
        open_calls.append(table.add(table.clock.now + chance.choice((0.01, 0.09, 0.11, 1.0, 60.0))))
        if chance.random() < 0.8:
            call = open_calls.pop(chance.randrange(len(open_calls)))
            ended = table.ended(call)
            assert ended is None or ended == pytest.approx(call.deadline)
            table.calls.remove(call)
            (removed if ended is None else kept).append(call)
    table.clock.run_until(table.clock.now + 100)
    assert all(table.ended(call) is None for call in removed)
    assert [table.ended(call) for call in open_calls] == pytest.approx([call.deadline for call in open_calls])
    assert kept


def test_one_timer_serves_all_that_end_in_time(table: Table) -> None:
    for _ in range(1000):
        table.calls.remove(table.add(table.clock.now + 60))
        table.clock.run_until(table.clock.now + 0.001)
    assert table.clock.made == 1


def test_the_table_is_looked_through_at_most_ten_times_a_second(table: Table) -> None:
    for number in range(1000):
        table.add(1000 + 0.2 + number / 100)
    looks = [0]
    look_through = table.calls._look_through

    def counted() -> None:
        looks[0] += 1
        look_through()

    table.calls._look_through = counted  # type: ignore[method-assign]
    table.clock.run_until(1011)
    assert 50 < looks[0] <= 110


def test_an_earlier_one_moves_the_timer(table: Table) -> None:
    late, early = table.add(1050.0), table.add(1001.05)
    table.clock.run_until(1002)
    assert table.ended(early) == pytest.approx(1001.05)
    assert table.ended(late) is None
    table.calls.remove(early)
    table.clock.run_until(1051)
    assert table.ended(late) == pytest.approx(1050.0)


def test_a_deadline_that_is_over_ends_the_call_at_once(table: Table) -> None:
    call = table.add(999.0)
    table.clock.run_until(1000.0)
    assert table.ended(call) == 1000.0


def test_removal_shortly_before_the_deadline(table: Table) -> None:
    first, call, other = table.add(1001.0), table.add(1001.05), table.add(1001.06)
    table.clock.run_until(1001.01)
    assert table.ended(first)
    assert call.timer is not None
    table.calls.remove(call)
    table.calls.remove(call)
    assert call.timer is None
    table.clock.run_until(1002)
    assert table.ended(call) is None
    assert table.ended(other) == pytest.approx(1001.06)


def test_close_leaves_no_timer(table: Table) -> None:
    table.add(1001)
    table.calls.table.clear()
    table.calls.close(rpclib.TransportClosed("closed"))
    table.calls.close(rpclib.TransportClosed("closed"))
    assert not table.clock.due


async def test_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    link = unconnected()
    calls = Calls(link)
    now = loop.time()
    call = Call(b"i" * 16, Sender(link, ADDRESS), "boot", loop.create_future(), now, now + 0.15, 1.0)
    calls.add(call)
    with pytest.raises(rpclib.CallTimeout):
        await asyncio.wait_for(call.future, 5)
    assert loop.time() >= call.deadline - 0.001
