"""Running requests: a bounded number at a time, each in a task of its own, each answered."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any

from rpclib import serializer
from rpclib.address import Address, Kind
from rpclib.context import Context, current
from rpclib.driver import Delivery, Driver, Route
from rpclib.endpoints import Endpoints, Method
from rpclib.envelope import CALL, Request, decode, encode_error, encode_result
from rpclib.errors import (
    REGISTERED,
    BadEnvelope,
    ConnectionLost,
    MessageTooLarge,
    RemoteError,
    RpcError,
    SerializationError,
    TransportError,
    WorkerLost,
    details_of,
    type_name,
)

if TYPE_CHECKING:
    from rpclib.transport import Transport

log = logging.getLogger("rpclib")

_ROUTES = 1000
_REPLY_WITHOUT_DEADLINE = 60.0


class Workers:
    """Takes deliveries, runs what they ask for, answers. ``limit`` requests run at a time."""

    def __init__(self, rpc: Transport, endpoints: Endpoints, limit: int) -> None:
        self._rpc = rpc
        self._endpoints = endpoints
        self.limit = limit
        self.waiting = 0
        """How many addresses have something to run and no worker for it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._threads: ThreadPoolExecutor | None = None
        self._driver: Driver | None = None
        self._routes: dict[str, Route] = {}

    @property
    def count(self) -> int:
        """Requests that run now."""
        return len(self._tasks)

    async def room(self) -> int:
        """How many more may start; waits until it is at least one."""
        while (free := self.limit - len(self._tasks)) <= 0:
            self._room.clear()
            self.waiting += 1
            try:
                await self._room.wait()
            finally:
                self.waiting -= 1
        return free

    def start(self, delivery: Delivery) -> None:
        """Run the request in ``delivery``, or answer why not. Never raises."""
        try:
            request = decode(delivery.body)
            if not isinstance(request, Request):
                raise BadEnvelope("not a request")
        except BadEnvelope as error:
            self._rpc.bad_envelope(error)
            return
        deadline = None
        if request.remaining is not None:
            left = request.remaining - delivery.waited
            if left <= 0:
                self._rpc.counters.expired += 1
                return
            deadline = monotonic() + left
        context = Context(request.id, request.method, request.caller, request.context, deadline)
        try:
            method = self._endpoints.find(request)
            if delivery.redelivered and not method.idempotent:
                self._rpc.counters.redelivered += 1
                raise WorkerLost(
                    f"a worker that had taken {request.method} went away; it may have run", maybe_executed=True
                )
        except RpcError as error:
            self._spawn(self._refuse(request, context, error))
        else:
            self._spawn(self._run(request, context, method))

    async def idle(self) -> None:
        """Return when nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel what still runs; its callers are told WorkerLost."""
        for task in self._tasks:
            task.cancel()
        await self.idle()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request ended in a bug of rpclib", exc_info=error)

    async def _refuse(self, request: Request, context: Context, error: RpcError) -> None:
        if request.kind != CALL:
            log.warning("cast of %s from %s not run: %s", request.method[:80], request.caller, error)
        await self._answer(request, context, _refusal(request, error))

    async def _run(self, request: Request, context: Context, method: Method) -> None:
        current.set(context)
        try:
            if method.is_async:
                result = await method.function(**request.args)
            else:
                result = await self._in_thread(method, request.args)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                error = WorkerLost(f"the server was stopped while it ran {request.method}", maybe_executed=True)
                await asyncio.shield(self._answer(request, context, _refusal(request, error)))
                raise
            body = _failure(request, asyncio.CancelledError("the endpoint cancelled itself"))
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an endpoint does not end the worker
            if request.kind != CALL:
                log.error("cast of %s from %s failed", request.method, request.caller, exc_info=error)
                return
            body = _failure(request, error)
        else:
            if request.kind != CALL:
                return
            body = self._result(request, result)
        await self._answer(request, context, body)

    async def _in_thread(self, method: Method, arguments: dict[str, Any]) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.limit, thread_name_prefix="rpclib-endpoint")
        function = functools.partial(contextvars.copy_context().run, method.function, **arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _result(self, request: Request, result: Any) -> bytes:
        try:
            serializer.check_value(result, f"the result of {request.method}")
            body = encode_result(request.id, result)
            if len(body) > self._rpc.max_body:
                raise MessageTooLarge(
                    f"the result of {request.method} takes {len(body)} bytes; at most {self._rpc.max_body} travel"
                )
        except (SerializationError, MessageTooLarge) as error:
            log.error("%s ran, but its result cannot be sent: %s", request.method, error)
            return _refusal(request, error)
        return body

    async def _answer(self, request: Request, context: Context, body: bytes) -> None:
        if request.kind != CALL or request.reply_to is None:
            return
        connection = self._rpc.connection
        try:
            while True:
                driver = connection.driver
                if driver is None or driver.congested:
                    left = context.remaining
                    driver = await connection.ready(_REPLY_WITHOUT_DEADLINE if left is None else left)
                if driver is not self._driver:
                    self._driver, self._routes = driver, {}
                try:
                    driver.send(self._route(driver, request.reply_to), body, None, request.id)
                    return
                except ConnectionLost as error:
                    connection.dead(driver, error)
        except (TransportError, TimeoutError) as error:
            self._rpc.counters.unanswered += 1
            log.warning("no answer to %s from %s: %s", request.method[:80], request.caller, error)

    def _route(self, driver: Driver, reply_to: str) -> Route:
        route = self._routes.get(reply_to)
        if route is None:
            if len(self._routes) >= _ROUTES:
                self._routes.clear()
            route = self._routes[reply_to] = driver.route(Address(Kind.INBOX, "", key=reply_to))
        return route


def _refusal(request: Request, error: RpcError) -> bytes:
    """An error of rpclib itself, which arrives as its own class."""
    return encode_error(request.id, error.code, "", str(error), "", None, details_of(error))


def _failure(request: Request, error: BaseException) -> bytes:
    """What an endpoint raised: its own class where that may travel, else the makings of a RemoteError."""
    if isinstance(error, RpcError) and error.travels:
        return _refusal(request, error)
    name = type_name(type(error))
    try:
        message = str(error)
    except Exception:
        message = "(its __str__ raised)"
    text = "".join(traceback.format_exception(error))[-20_000:]
    message, text = (part.encode(errors="backslashreplace").decode() for part in (message[:20_000], text))
    args = list(error.args) if name in REGISTERED else None
    try:
        if args is not None:
            serializer.check_value(args, "args")
        return encode_error(request.id, RemoteError.code, name, message, text, args, {})
    except SerializationError:
        return encode_error(request.id, RemoteError.code, name, message, text, None, {})
