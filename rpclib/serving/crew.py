"""The tasks that requests run in, shared by all servers of a transport.

They are real tasks, so `asyncio.timeout`, cancellation and context variables behave as anywhere else. They are
kept and reused, because making a task costs more than a small endpoint. An arrival wakes a parked task. A task
that sees more work wakes the next one before it does its own. Work that does not suspend is all done by the first
task, for any number of servers, without a turn of the loop. A task that was cancelled, or whose context variables
were changed, is not used again.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from rpclib.wire.request import Request

log = logging.getLogger("rpclib")

_DONE_PER_TURN = 64


class Owner(Protocol):
    """Whose requests a crew runs."""

    tasks: set[asyncio.Task[None]]
    """The tasks that run its requests now."""

    def ended(self, task: asyncio.Task[None]) -> None:
        """A request has ended: ``task`` does not run it any more."""


Work = Callable[[Request, Any], Coroutine[Any, Any, None]]
"""Runs a request. The second argument is what was found out about the request before: its method, or an error."""


class Crew:
    """Runs requests, in order, each in a task of its own for as long as it takes."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        """What tasks begin with: that of who made the transport, not of who happens to send."""
        self._jobs: deque[tuple[Owner, Work, Request, Any]] = deque()
        self._parked: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False

    def add(self, owner: Owner, work: Work, request: Request, found: Any) -> None:
        """Run ``work(request, found)``."""
        self._jobs.append((owner, work, request, found))
        if not self._waking:
            self._wake()

    def withdraw(self, owner: Owner) -> list[Request]:
        """Take back the requests of ``owner`` that were not begun."""
        withdrawn = [request for each, _, request, _ in self._jobs if each is owner]
        others = [job for job in self._jobs if job[0] is not owner]
        self._jobs.clear()
        self._jobs.extend(others)
        return withdrawn

    async def close(self) -> None:
        """End all tasks. Call it after every owner has closed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)  # its owner has logged work that ignores cancellation

    def _wake(self) -> None:
        self._waking = True
        while self._parked:
            parked = self._parked.pop()
            if not parked.done():
                parked.set_result(None)
                return
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._work(), name="rpclib-worker", context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request ended in a bug of rpclib", exc_info=error)
        if self._jobs:
            self._wake()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        clean = contextvars.copy_context()
        jobs = self._jobs
        while True:
            self._waking = False
            done = 0
            while jobs:
                owner, work, request, found = jobs.popleft()
                if jobs and not self._waking:
                    self._wake()
                owner.tasks.add(task)
                try:
                    await work(request, found)
                finally:
                    owner.ended(task)
                if task.cancelling() or contextvars.copy_context() != clean:
                    return
                done += 1
                if done % _DONE_PER_TURN == 0:
                    await asyncio.sleep(0)
            parked = task.get_loop().create_future()
            self._parked.append(parked)
            await parked
