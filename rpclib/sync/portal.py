"""An event loop in a thread, and the way in from other threads. Used by `rpclib.sync` only.

A caller puts a job into a queue and wakes the loop, unless another caller has done so since the loop last looked.
It then waits for a lock of its own, which the task of the job releases. No caller waits for another one. An
interrupted caller leaves a lock behind that nobody uses again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from rpclib.errors import RpcError, TransportClosed

T = TypeVar("T")


class Job(Generic[T]):
    """A coroutine on its way through the loop, and what became of it. ``done`` is locked until it ended."""

    __slots__ = ("context", "coroutine", "done", "error", "result", "task")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.context = copy_context()
        self.done = threading.Lock()
        self.done.acquire()
        self.result: T
        self.error: BaseException | None = None
        self.task: asyncio.Task[None] | None = None

    async def work(self) -> None:
        try:
            self.result = await self.coroutine
        except asyncio.CancelledError:
            self.error = TransportClosed("the transport was closed")
        except BaseException as error:  # whatever it is, it is for the caller
            self.error = error
        self.done.release()

    def refuse(self) -> None:
        self.coroutine.close()
        self.error = TransportClosed("the transport is closed")
        self.done.release()

    def outcome(self) -> T:
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            self.error = None  # its traceback leads here


class Portal:
    """Runs coroutines on a loop thread of its own, from its making to `close`."""

    def __init__(self) -> None:
        self.inherited = False
        """True in a child forked after this was made: the thread is not there."""
        self._jobs: deque[Job[Any]] = deque()
        self._woken = False
        """The loop will look at the queue. It clears this first, so that no job falls in between."""
        self._ended = False
        """Set by the loop's thread; jobs that are queued later are not looked at."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="rpclib-loop", daemon=True)
        _portals.add(self)
        self._thread.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Job[T]:
        """Start a coroutine on the loop, in a copy of the caller's context. Raises TransportClosed.

        Safe in a signal handler, whatever it interrupted.
        """
        job = Job(coroutine)
        self._put(job)
        return job

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it. Interrupted, it cancels the coroutine."""
        job = Job(coroutine)
        try:
            self.guard()
            self._put(job)
            job.done.acquire()
        except BaseException:
            self._woken = False  # waking may be what was interrupted
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it the coroutine
                self._loop.call_soon_threadsafe(self._cancel, job)
            raise
        return job.outcome()

    def guard(self) -> None:
        """Raise RpcError on the loop's own thread, where waiting for the loop would never end."""
        if threading.get_ident() == self._thread.ident and not self._ended:
            raise RpcError(
                "a blocking call was made on the loop that would have to answer it; use the async API in async "
                "endpoints and callbacks"
            )

    def close(self) -> None:
        """Stop the loop and join its thread; what others still run on it ends with TransportClosed."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def _put(self, job: Job[Any]) -> None:
        self._jobs.append(job)
        # Looked at after the append: what the loop does not see when it ends, sees the end here.
        if self._ended and job.task is None:
            job.coroutine.close()
            raise TransportClosed("the transport is closed")
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                if not self._ended:  # then the loop is closed, and has refused the job
                    raise

    # On the loop's thread.

    def _begin(self) -> None:
        self._woken = False
        while self._jobs:
            job = self._jobs.popleft()
            if self._ended:
                job.refuse()
            else:
                job.task = self._loop.create_task(job.work(), context=job.context)

    def _cancel(self, job: Job[Any]) -> None:
        self._begin()
        if job.task is None:
            job.coroutine.close()
        else:
            self._loop.call_soon(job.task.cancel)  # not before its first step: `work` has to see it

    def _stop(self) -> None:
        if not self._ended:
            self._loop.stop()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._ended = True
            self._begin()
            self._loop.run_until_complete(self._finish())
            self._loop.close()

    async def _finish(self) -> None:
        """Cancel everything. Every task has made its first step when this makes its own."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()
_kept: list[Portal] = []
"""Portals inherited by a forked child. Their loops share file descriptors with the parent's: never finalised."""


def _after_fork() -> None:
    for portal in _portals:
        portal.inherited = True
    _kept.extend(_portals)


os.register_at_fork(after_in_child=_after_fork)
