"""The requests of one server: a bounded number at a time, each run by the transport's `Crew`, each answered."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from rpclib.context import current
from rpclib.driver import Delivery
from rpclib.endpoints import Endpoints, Method
from rpclib.envelope import CALL, Request, decode
from rpclib.errors import BadEnvelope, RpcError, WorkerLost, type_name
from rpclib.intake import Intake
from rpclib.replies import failure, refusal

if TYPE_CHECKING:
    from rpclib.transport import Transport

log = logging.getLogger("rpclib")

_CANCEL_WITHIN = 5.0
"""Seconds that cancelled endpoints have to end."""


class Workers:
    """Takes deliveries, runs what they ask for, answers. At most ``limit`` requests at a time."""

    def __init__(self, rpc: Transport, endpoints: Endpoints, limit: int) -> None:
        self.limit = limit
        self.count = 0
        """Requests that were started and have not ended."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Those that run them."""
        self._rpc = rpc
        self._endpoints = endpoints
        self._hungry: dict[Intake, None] = {}
        """Where more has arrived than there was room for; the one that waits longest first."""
        self._feeding = False
        self._closing = False
        self._quiet = asyncio.Event()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def saturated(self) -> bool:
        """Whether as many run as may while more has arrived."""
        return any(intake.waiting for intake in self._hungry)

    def feed(self, intake: Intake) -> None:
        """Start what has arrived at an address: now as much as there is room for, the rest as soon as there is."""
        while (room := self.limit - self.count) > 0:
            taken = intake.take(room)
            for delivery in taken:
                self.start(delivery)
            if len(taken) < room:
                return
        if intake.waiting:
            self._hungry[intake] = None

    async def idle(self) -> None:
        """Return when nothing runs and nothing waits to."""
        while self.count or self._hungry:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Cancel what still runs; its callers are told WorkerLost."""
        self._closing = True
        unbegun = self._rpc.crew.withdraw(self)  # at once: the others of the crew would go on with it
        self.count -= len(unbegun)
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, deaf = await asyncio.wait(tasks, timeout=_CANCEL_WITHIN)
            if deaf:
                log.error("%d endpoints went on after they were cancelled; they are left alone", len(deaf))
        for request, *_ in unbegun:
            error = WorkerLost(f"the server was stopped before it ran {request.method}", maybe_executed=False)
            if request.kind == CALL:
                self._rpc.replies.answer_now(request, refusal(request, error))
            else:
                log.warning("cast of %s from %s not run: %s", request.method[:80], request.caller, error)
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def start(self, delivery: Delivery) -> None:
        """Run the request in ``delivery``, or answer why not. Never raises."""
        try:
            request = decode(delivery.body)
            if type(request) is not Request:
                raise BadEnvelope("not a request")
        except BadEnvelope as error:
            self._rpc.bad_envelope(error)
            return
        if request.remaining is not None:
            left = request.remaining - delivery.waited
            if left <= 0:
                self._rpc.counters.expired += 1
                return
            request.deadline = monotonic() + left
        self.count += 1
        try:
            method = self._endpoints.find(request)
            if delivery.redelivered and not method.idempotent:
                raise self._may_have_run(request)
        except RpcError as error:
            self._rpc.crew.add(self, self._refuse, request, error)
        else:
            self._rpc.crew.add(self, self._run, request, method)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Called by the crew: a request has ended."""
        self.tasks.discard(task)
        self.count -= 1
        if self._hungry or not self.count:
            self._made_room()

    def _may_have_run(self, request: Request) -> WorkerLost:
        self._rpc.counters.redelivered += 1
        text = f"a worker that had taken {request.method} went away; it may have run"
        return WorkerLost(text, maybe_executed=True)

    def _made_room(self) -> None:
        if not self._hungry:
            self._quiet.set()
        elif not self._feeding:  # once a turn, so that several can be taken together
            self._feeding = True
            self._rpc.loop.call_soon(self._feed_hungry)

    def _feed_hungry(self) -> None:
        self._feeding = False
        for intake in list(self._hungry):
            del self._hungry[intake]
            self.feed(intake)
        if not self._hungry and not self.count:
            self._quiet.set()

    async def _run(self, request: Request, method: Method) -> None:
        token = current.set(request)
        try:
            if method.is_async:
                result = await method.function(**request.args)
            else:
                result = await self._in_thread(method, request.args)
            body = self._rpc.replies.result(request, result) if request.kind == CALL else b""
        except asyncio.CancelledError as error:
            body = self._cancelled(request, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an endpoint does not end the worker
            self._failed(request, error)
            body = failure(request, error, self._rpc.max_body)
        finally:
            current.reset(token)
        if request.kind == CALL and not self._rpc.replies.answer_now(request, body):
            await self._answer_later(request, body)

    async def _refuse(self, request: Request, error: RpcError) -> None:
        kind = "call" if request.kind == CALL else "cast"
        log.warning("%s of %s from %s not run: %s", kind, request.method[:80], request.caller, error)
        self._rpc.counters.failed += 1
        body = refusal(request, error)
        if request.kind == CALL and not self._rpc.replies.answer_now(request, body):
            await self._answer_later(request, body)

    async def _answer_later(self, request: Request, body: bytes) -> None:
        answer = self._rpc.replies.answer(request, body)
        task = asyncio.current_task()
        assert task is not None
        if task.cancelling():  # this task cannot wait any more
            other = self._rpc.loop.create_task(answer)
            self.tasks.add(other)
            other.add_done_callback(self.tasks.discard)
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
        return await self._rpc.loop.run_in_executor(self._threads, function)


def _plain(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a plain endpoint in its thread."""
    try:
        return function(**arguments)
    except StopIteration as error:  # no future takes one: its caller would wait for ever
        raise RuntimeError("the endpoint raised StopIteration") from error
