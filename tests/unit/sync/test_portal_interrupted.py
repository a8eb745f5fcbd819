"""Signals in the portal: the interrupted caller is gone, and everybody else is served, wherever it hit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from rpclib.sync import portal as portal_module
from rpclib.sync.portal import Job, Portal
from tests.support.portals import LONG, Held, echo, finished


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


class Stop(BaseException):
    pass


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """A function that interrupts the main thread as Ctrl-C does."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_wait_cancels(portal: Portal, interrupt: Callable[[], None]) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        interrupt()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    for number in range(20):
        cancelled.clear()
        with pytest.raises(Stop):
            portal.run(hang())
        assert portal.run(echo(number)) == number
        assert cancelled.wait(LONG)


def test_interrupted_before_the_loop_began(portal: Portal, interrupt: Callable[[], None]) -> None:
    """The coroutine is cancelled where it can see that, not before it was ever run."""
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    held = Held(portal)
    coroutine = hang()

    def when_queued() -> None:
        while not portal._jobs:
            time.sleep(0.001)
        interrupt()

    threading.Thread(target=when_queued).start()
    with pytest.raises(Stop):
        portal.run(coroutine)
    held.release()
    assert portal.run(echo(1)) == 1
    assert ended == ["cancelled"]


FILES = {portal_module.__file__, asyncio.base_events.__file__, asyncio.selector_events.__file__, selectors.__file__}


@contextlib.contextmanager
def at_instruction(wanted: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """``act`` before one of the bytecode instructions that this thread runs in the portal and in asyncio."""
    count = itertools.count()
    reached: list[int] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and (number := next(count)) == wanted:
            reached.append(number)
            act()
        return trace

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for this only when tracing begins
    sys.settrace(trace)
    try:
        yield reached
    finally:
        sys.settrace(before)


@pytest.mark.filterwarnings("ignore:coroutine 'echo' was never awaited:RuntimeWarning")
def test_interrupted_at_any_instruction(portal: Portal) -> None:
    """Nobody is left waiting: neither a bystander that relied on the interrupted one to wake the loop, nor the
    next."""
    bystanders: list[Job[int]] = []

    def act() -> None:
        bystanders.append(portal.submit(echo(number)))
        raise Stop

    for number in itertools.count():
        with contextlib.suppress(Stop), at_instruction(number, act) as reached:
            portal.run(echo(-1))
        assert [finished(job) for job in bystanders] == [number] * len(reached)
        assert finished(portal.submit(echo(number))) == number
        bystanders.clear()
        if not reached:
            break
    assert number > 50
    assert len(asyncio.all_tasks(portal._loop)) == 0


def test_interrupted_twice_while_waking_the_loop(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def wake(*call: Any) -> None:
        raise Stop

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(portal._loop, "call_soon_threadsafe", wake)
        portal.run(echo(1))
    assert finished(portal.submit(echo(2))) == 2


def test_a_signal_handler_submits_at_any_instruction(portal: Portal) -> None:
    submitted: list[Job[int]] = []
    for number in itertools.count():
        with at_instruction(number, lambda: submitted.append(portal.submit(echo(number)))) as reached:  # noqa: B023
            assert portal.run(echo(-1)) == -1
        assert [finished(job) for job in submitted] == [number] * len(reached)
        submitted.clear()
        if not reached:
            break
    assert number > 50
