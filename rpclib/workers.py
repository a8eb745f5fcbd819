"""Running requests: a bounded number at a time, each in a real task, each answered.

The tasks are kept and reused, since making one costs more than a small endpoint: an arrival wakes one parked
worker; a worker that sees more work wakes the next before it runs its own. Endpoints that do not suspend are thus
all run by the first worker without a turn of the loop; those that suspend hand over. A worker whose task was
cancelled or whose context an endpoint changed is not used again.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from rpclib.context import Context, current
from rpclib.driver import Delivery
from rpclib.endpoints import Endpoints, Method
from rpclib.envelope import CALL, Request, decode
from rpclib.errors import BadEnvelope, RpcError, WorkerLost, type_name
from rpclib.replies import Replies, failure, refusal

if TYPE_CHECKING:
    from rpclib.transport import Transport

log = logging.getLogger("rpclib")

_RUNS_PER_TURN = 64
_CANCEL_WITHIN = 5.0
"""Seconds that cancelled endpoints have to end."""


class Workers:
    """Takes deliveries, runs what they ask for, answers. At most ``limit`` requests at a time."""

    def __init__(self, rpc: Transport, endpoints: Endpoints, limit: int) -> None:
        self.limit = limit
        self.count = 0
        """Requests that were started and have not ended."""
        self.waiting = 0
        """How many addresses have something to run and no worker for it."""
        self._rpc = rpc
        self._endpoints = endpoints
        self._replies = Replies(rpc)
        self._jobs: deque[tuple[Request, Context, Method | RpcError]] = deque()
        self._parked: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waking = False
        self._closing = False
        self._room = asyncio.Event()
        self._quiet = asyncio.Event()
        self._threads: ThreadPoolExecutor | None = None

    async def room(self) -> int:
        """How many more may start; waits until it is at least one."""
        while (free := self.limit - self.count) <= 0:
            self._room.clear()
            self.waiting += 1
            try:
                await self._room.wait()
            finally:
                self.waiting -= 1
        return free

    def start(self, delivery: Delivery) -> None:
        """Run the request in ``delivery``, or answer why not. Never raises."""
        counters = self._rpc.counters
        try:
            request = decode(delivery.body)
            if type(request) is not Request:
                raise BadEnvelope("not a request")
        except BadEnvelope as error:
            self._rpc.bad_envelope(error)
            return
        deadline = None
        if request.remaining is not None:
            left = request.remaining - delivery.waited
            if left <= 0:
                counters.expired += 1
                return
            deadline = monotonic() + left
        job: Method | RpcError
        try:
            job = self._endpoints.find(request)
            if delivery.redelivered and not job.idempotent:
                counters.redelivered += 1
                job = WorkerLost(
                    f"a worker that had taken {request.method} went away; it may have run", maybe_executed=True
                )
        except RpcError as error:
            job = error
        context = Context(request.id, request.method, request.caller, request.context, deadline)
        self._jobs.append((request, context, job))
        self.count += 1
        if not self._waking:
            self._wake()

    async def idle(self) -> None:
        """Return when nothing runs."""
        while self.count:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Cancel what still runs; its callers are told WorkerLost."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, deaf = await asyncio.wait(self._tasks, timeout=_CANCEL_WITHIN)
            if deaf:
                log.error("%d endpoints went on after they were cancelled; they are left alone", len(deaf))
        for request, _, _ in self._jobs:
            error = WorkerLost(f"the server was stopped before it ran {request.method}", maybe_executed=False)
            if request.kind == CALL:
                self._replies.answer_now(request, refusal(request, error))
            else:
                log.warning("cast of %s from %s not run: %s", request.method[:80], request.caller, error)
        self._jobs.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _wake(self) -> None:
        self._waking = True
        while self._parked:
            parked = self._parked.pop()
            if not parked.done():
                parked.set_result(None)
                return
        task = asyncio.get_running_loop().create_task(self._work(), name="rpclib-worker")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request ended in a bug of rpclib", exc_info=error)
        if self._jobs and not self._closing:
            self._wake()

    async def _work(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        clean = contextvars.copy_context()
        while True:
            self._waking = False
            runs = 0
            while self._jobs:
                request, context, job = self._jobs.popleft()
                if self._jobs and not self._waking:
                    self._wake()
                try:
                    await self._run(request, context, job, task)
                finally:
                    self._end()
                if task.cancelling() or contextvars.copy_context() != clean:
                    return
                runs += 1
                if runs % _RUNS_PER_TURN == 0:
                    await asyncio.sleep(0)
            parked = loop.create_future()
            self._parked.append(parked)
            await parked

    def _end(self) -> None:
        self.count -= 1
        if self.waiting:
            self._room.set()
        if not self.count:
            self._quiet.set()

    async def _run(
        self, request: Request, context: Context, job: Method | RpcError, task: asyncio.Task[None]
    ) -> None:
        if isinstance(job, RpcError):
            kind = "call" if request.kind == CALL else "cast"
            log.warning("%s of %s from %s not run: %s", kind, request.method[:80], request.caller, job)
            self._rpc.counters.failed += 1
            body = refusal(request, job)
        else:
            token = current.set(context)
            try:
                if job.is_async:
                    result = await job.function(**request.args)
                else:
                    result = await self._in_thread(job, request.args)
            except asyncio.CancelledError as error:
                body = self._cancelled(request, error)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit too: an endpoint does not end the worker
                self._failed(request, error)
                body = failure(request, error, self._rpc.max_body)
            else:
                body = self._replies.result(request, result) if request.kind == CALL else b""
            finally:
                current.reset(token)
        if request.kind != CALL or self._replies.answer_now(request, body):
            return
        answer = self._replies.answer(request, context, body)
        if task.cancelling():  # this task cannot wait any more
            other = asyncio.get_running_loop().create_task(answer)
            self._tasks.add(other)
            other.add_done_callback(self._ended)
        else:
            await answer

    def _failed(self, request: Request, error: BaseException) -> None:
        self._rpc.counters.failed += 1
        if request.kind == CALL:  # its caller gets the rest
            log.warning("call of %s from %s raised %s", request.method, request.caller, type_name(type(error)))
        else:
            log.error("cast of %s from %s failed", request.method, request.caller, exc_info=error)

    def _cancelled(self, request: Request, error: asyncio.CancelledError) -> bytes:
        if self._closing:
            stopped = WorkerLost(f"the server was stopped while it ran {request.method}", maybe_executed=True)
            return refusal(request, stopped)
        self._failed(request, error)
        return failure(request, error, self._rpc.max_body)

    async def _in_thread(self, method: Method, arguments: dict[str, Any]) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.limit, thread_name_prefix="rpclib-endpoint")
        function = functools.partial(contextvars.copy_context().run, _plain, method.function, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _plain(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a plain endpoint in its thread."""
    try:
        return function(**arguments)
    except StopIteration as error:  # no future takes one: its caller would wait for ever
        raise RuntimeError("the endpoint raised StopIteration") from error
