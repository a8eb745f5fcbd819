"""Calls under load, and the ledger that tells afterwards whether every promise was kept."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import rpclib


class Worker:
    """Writes down the id of everything it executes."""

    def __init__(self) -> None:
        self.executed: Counter[int] = Counter()

    @rpclib.expose
    async def work(self, number: int) -> int:
        self.executed[number] += 1
        await asyncio.sleep(0.001)  # stands for the work
        return number


@dataclass
class Ledger:
    """What became of each call, by its id."""

    replied: set[int] = field(default_factory=set)
    failed: dict[int, rpclib.RpcError] = field(default_factory=dict)
    longest: float = 0.0

    def errors(self) -> Counter[str]:
        return Counter(type(error).__name__ for error in self.failed.values())


class Load:
    """``callers`` loops that call as fast as they get answers, until the block ends.

    Checks at the end: at most once (nothing executed twice, whatever was sent again), every call that replied was
    executed, none that surely was not executed was, and no call outlived its timeout by more than a second.
    """

    def __init__(
        self, rpc: rpclib.Transport, workers: list[Worker], *, callers: int = 8, timeout: float = 4
    ) -> None:
        self.ledger = Ledger()
        self._client = rpc.client("load", timeout=timeout)
        self._timeout = timeout
        self._workers = workers
        self._numbers = itertools.count()
        self._callers = callers
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self._callers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)
        if exc == (None, None, None):
            self.check()

    async def progress(self, count: int = 50, within: float = 20) -> None:
        """Return when ``count`` more calls were answered."""
        goal = len(self.ledger.replied) + count
        async with asyncio.timeout(within):
            while len(self.ledger.replied) < goal:
                await asyncio.sleep(0.005)

    def check(self) -> None:
        executed: Counter[int] = Counter()
        for worker in self._workers:
            executed += worker.executed
        twice = [number for number, count in executed.items() if count > 1]
        assert not twice, f"executed more than once: {twice[:10]}"
        assert self.ledger.replied <= executed.keys(), "a reply without an execution"
        for number, error in self.ledger.failed.items():
            if getattr(error, "maybe_executed", True) is False:
                assert number not in executed, f"{error!r} promised that it had not run"
        assert self.ledger.longest < self._timeout + 1, f"a call took {self.ledger.longest:.1f} s"

    async def _call(self) -> None:
        while not self._stopping:
            number = next(self._numbers)
            began = time.monotonic()
            try:
                assert await self._client.call("work", number=number) == number
                self.ledger.replied.add(number)
            except rpclib.RpcError as error:
                self.ledger.failed[number] = error
            self.ledger.longest = max(self.ledger.longest, time.monotonic() - began)
