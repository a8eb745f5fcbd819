"""The way into the loop's thread: nothing is lost, swapped or left waiting, until its end and after."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

import rpclib
from rpclib.sync.portal import Portal
from tests.support.portals import LONG, Held, echo, finished


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_results_and_errors(portal: Portal) -> None:
    async def fail() -> None:
        raise ValueError("no")

    assert portal.run(echo(1)) == 1
    with pytest.raises(ValueError, match="no"):
        portal.run(fail())
    assert finished(portal.submit(echo(2))) == 2


def test_an_error_is_freed_with_its_last_reference(portal: Portal) -> None:
    class Broken(Exception):
        pass

    async def fail() -> None:
        raise Broken

    kept: list[weakref.ref[BaseException]] = []
    gc.disable()
    try:
        try:
            portal.run(fail())
        except Broken as error:
            kept.append(weakref.ref(error))
        portal.run(echo(None))  # so that the loop has let go of it too
        assert kept[0]() is None
    finally:
        gc.enable()


def test_the_callers_context_is_seen_and_left_alone(portal: Portal) -> None:
    variable: ContextVar[str] = ContextVar("variable")

    async def use() -> str:
        seen = variable.get()
        variable.set("changed")
        return seen

    held = Held(portal)
    jobs = []
    for name in ("who wakes the loop", "who comes after"):
        variable.set(name)
        jobs.append(portal.submit(use()))
    held.release()
    assert [finished(job) for job in jobs] == ["who wakes the loop", "who comes after"]
    assert variable.get() == "who comes after"


def test_a_busy_loop_is_woken_once_for_all(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(portal)
    wakes: list[Any] = []
    wake = portal._loop.call_soon_threadsafe

    def counted(*call: Any) -> None:
        wakes.append(call)
        wake(*call)

    monkeypatch.setattr(portal._loop, "call_soon_threadsafe", counted)
    jobs = [portal.submit(echo(number)) for number in range(20)]
    assert len(wakes) == 1
    held.release()
    assert [finished(job) for job in jobs] == list(range(20))
    assert finished(portal.submit(echo("more"))) == "more"
    assert len(wakes) == 2


# The end.


def test_after_the_end() -> None:
    portal = Portal()
    portal.close()
    portal.close()
    for use in (portal.run, portal.submit):
        with pytest.raises(rpclib.TransportClosed):
            use(echo(1))


@pytest.mark.parametrize("begun", [True, False])
def test_what_runs_and_what_is_queued_ends_with_the_loop(begun: bool) -> None:
    portal = Portal()

    async def hang() -> None:
        await asyncio.Event().wait()

    if begun:
        jobs = [portal.submit(hang()) for _ in range(3)]
        portal.run(echo(None))
        portal.close()
    else:
        held = Held(portal)
        portal._loop.call_soon_threadsafe(portal._stop)
        jobs = [portal.submit(hang()) for _ in range(3)]
        held.release()
        portal.close()
    for job in jobs:
        with pytest.raises(rpclib.TransportClosed):
            finished(job)


def test_the_loop_ends_between_queueing_and_waking(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def wake(*call: Any) -> None:
        monkeypatch.undo()
        portal.close()
        portal._loop.call_soon_threadsafe(*call)

    monkeypatch.setattr(portal._loop, "call_soon_threadsafe", wake)
    job = portal.submit(echo(1))
    with pytest.raises(rpclib.TransportClosed):
        finished(job)


def test_closing_twice_ends_everything_in_good_order() -> None:
    portal = Portal()
    ending, closing_again = threading.Event(), threading.Event()
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.to_thread(closing_again.wait, LONG)
            await asyncio.sleep(0)
            ended.append("in good order")

    portal.submit(slow())
    portal.run(echo(None))
    first = threading.Thread(target=portal.close)
    first.start()
    assert ending.wait(LONG)
    portal._loop.call_soon_threadsafe(portal._loop.call_soon, closing_again.set)
    portal.close()
    first.join(LONG)
    assert ended == ["in good order"]


def test_closing_while_all_threads_submit() -> None:
    for _ in range(20):
        portal = Portal()
        begun = threading.Barrier(9)
        wrong: list[Any] = []

        def work(name: int, portal: Portal, begun: threading.Barrier, wrong: list[Any]) -> None:
            begun.wait()
            with contextlib.suppress(rpclib.TransportClosed):
                for number in itertools.count():
                    answer = portal.run(echo((name, number)))
                    wrong += [answer] if answer != (name, number) else []

        threads = [threading.Thread(target=work, args=(name, portal, begun, wrong)) for name in range(8)]
        for thread in threads:
            thread.start()
        begun.wait()
        portal.close()
        for thread in threads:
            thread.join(LONG)
            assert not thread.is_alive(), "a call never ended"
        assert wrong == []
