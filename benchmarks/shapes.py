"""What a peer's client does for the benchmark, and the two usual shapes of it: on an event loop, on threads.

Every peer is asked through `Client`; the clock runs around its methods, in its own process. Every answer is
compared with what was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from benchmarks.place import Place

T = TypeVar("T")

POLL = 0.001
"""Seconds between two looks at the tally."""


class WrongAnswer(Exception):
    """An echo that differs from what was sent."""


class Lost(Exception):
    """Casts that were not executed in time."""


class Client(ABC):
    """One connected client."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.topics: Iterator[str] = itertools.cycle(place.topic_names())

    @abstractmethod
    def open(self) -> None:
        """Connect. On return calls are answered."""

    @abstractmethod
    def call(self, n: int, in_flight: int, payload: bytes) -> None:
        """Make ``n`` calls, ``in_flight`` at a time, going through the topics in turn."""

    @abstractmethod
    def latencies(self, n: int, payload: bytes) -> list[float]:
        """Make ``n`` calls one after the other; the seconds each took."""

    def cast(self, n: int, payload: bytes) -> None:
        """Send ``n`` messages that nobody answers. They need not have been executed on return."""
        raise NotImplementedError

    def fanout(self, n: int, payload: bytes) -> None:
        """Send ``n`` messages to every server."""
        raise NotImplementedError

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Return when ``done()``, doing meanwhile what keeps the connection moving."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise Lost(f"not all casts were executed within {seconds} s")
            self.pause(POLL)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def idle(self, fd: int) -> None:
        """Return when ``fd`` is readable; heartbeats go on meanwhile."""
        select.select([fd], [], [])

    def another(self) -> Self:
        """One more client in this process, not opened yet."""
        return type(self)(self.place)


class AsyncClient(Client):
    """A client on an event loop: a call in flight is a coroutine that waits for its answer."""

    def __init__(self, place: Place, runner: asyncio.Runner | None = None) -> None:
        super().__init__(place)
        self.runner = runner or asyncio.Runner()

    @abstractmethod
    async def connect(self) -> None: ...

    @abstractmethod
    async def echo(self, topic: str, payload: bytes) -> object:
        """One call."""

    async def note(self, topic: str, payload: bytes) -> None:
        """One cast."""
        raise NotImplementedError

    async def tell(self, topic: str, payload: bytes) -> None:
        """One fanout."""
        raise NotImplementedError

    def open(self) -> None:
        self._run(self.connect())

    def call(self, n: int, in_flight: int, payload: bytes) -> None:
        numbers = iter(range(n))

        async def caller() -> None:
            for _ in numbers:
                if await self.echo(next(self.topics), payload) != payload:
                    raise WrongAnswer

        async def callers() -> None:
            await asyncio.gather(*(caller() for _ in range(in_flight)))

        self._run(callers())

    def latencies(self, n: int, payload: bytes) -> list[float]:
        async def one_by_one() -> list[float]:
            times = []
            for _ in range(n):
                began = time.perf_counter()
                answer = await self.echo(next(self.topics), payload)
                times.append(time.perf_counter() - began)
                if answer != payload:
                    raise WrongAnswer
            return times

        return self._run(one_by_one())

    def cast(self, n: int, payload: bytes) -> None:
        async def casts() -> None:
            for _ in range(n):
                await self.note(next(self.topics), payload)

        self._run(casts())

    def fanout(self, n: int, payload: bytes) -> None:
        async def fanouts() -> None:
            for _ in range(n):
                await self.tell(next(self.topics), payload)

        self._run(fanouts())

    def pause(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    def idle(self, fd: int) -> None:
        async def readable() -> None:
            loop, ready = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(fd)

        self._run(readable())

    def another(self) -> Self:
        return type(self)(self.place, self.runner)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)


class ThreadClient(Client):
    """A blocking client: a call in flight is a thread that waits for its answer."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._threads: dict[int, ThreadPoolExecutor] = {}

    @abstractmethod
    def echo(self, topic: str, payload: bytes) -> object:
        """One call; from any thread."""

    def note(self, topic: str, payload: bytes) -> None:
        """One cast."""
        raise NotImplementedError

    def tell(self, topic: str, payload: bytes) -> None:
        """One fanout."""
        raise NotImplementedError

    def call(self, n: int, in_flight: int, payload: bytes) -> None:
        numbers = iter(range(n))

        def caller() -> None:
            for _ in numbers:
                if self.echo(next(self.topics), payload) != payload:
                    raise WrongAnswer

        if in_flight == 1:
            caller()
        else:
            self.side_by_side(caller, in_flight)

    def side_by_side(self, work: Callable[[], None], width: int) -> None:
        """Run ``work`` in ``width`` threads, which are kept for the next time."""
        pool = self._threads.setdefault(width, ThreadPoolExecutor(width))
        for future in [pool.submit(work) for _ in range(width)]:
            future.result()

    def latencies(self, n: int, payload: bytes) -> list[float]:
        times = []
        for _ in range(n):
            began = time.perf_counter()
            answer = self.echo(next(self.topics), payload)
            times.append(time.perf_counter() - began)
            if answer != payload:
                raise WrongAnswer
        return times

    def cast(self, n: int, payload: bytes) -> None:
        for _ in range(n):
            self.note(next(self.topics), payload)

    def fanout(self, n: int, payload: bytes) -> None:
        for _ in range(n):
            self.tell(next(self.topics), payload)
