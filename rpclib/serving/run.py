"""One request: its method run, its answer sent."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rpclib.context import current
from rpclib.errors import RpcError, WorkerLost, type_name
from rpclib.link.link import Link
from rpclib.serving.endpoints import Method
from rpclib.serving.replies import Replies, failure, refusal
from rpclib.wire.request import Request

log = logging.getLogger("rpclib")


class Runner:
    """Runs the requests of one server, each in the task that calls it. Plain functions run on ``threads`` threads
    at most."""

    def __init__(self, link: Link, replies: Replies, threads: int) -> None:
        self.stopping = False
        """The server cancels what still runs."""
        self._link = link
        self._replies = replies
        self._limit = threads
        self._threads: ThreadPoolExecutor | None = None
        self._answering: set[asyncio.Task[None]] = set()
        """Tasks that send the answers of requests whose own task cannot wait any more."""

    async def run(self, request: Request, method: Method) -> None:
        """Run ``method`` and send its result, or what it raised. Raises nothing but KeyboardInterrupt."""
        token = current.set(request)
        try:
            if method.is_async:
                result = await method.function(**request.args)
            else:
                result = await self._in_thread(method, request.args)
            body = self._replies.result(request, result) if request.wants_answer else b""
        except asyncio.CancelledError as error:
            body = self._cancelled(request, error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an endpoint does not end the worker
            self._failed(request, error)
            body = failure(request, error, self._link.max_body)
        finally:
            current.reset(token)
        if request.wants_answer and not self._replies.answer_now(request, body):
            await self._answer_later(request, body)

    async def refuse(self, request: Request, error: RpcError) -> None:
        """Answer a request that does not run with ``error``."""
        kind = "call" if request.wants_answer else "cast"
        log.warning("%s of %s from %s not run: %s", kind, request.method[:80], request.caller, error)
        self._link.counters.failed += 1
        if request.wants_answer:
            body = refusal(request, error)
            if not self._replies.answer_now(request, body):
                await self._answer_later(request, body)

    def refuse_now(self, request: Request, error: RpcError) -> None:
        """Answer a request that does not run with ``error``, if there is a session right now."""
        if request.wants_answer:
            self._replies.refuse(request, error)
        else:
            log.warning("cast of %s from %s not run: %s", request.method[:80], request.caller, error)

    def close(self) -> None:
        """Let idle threads end. A plain function that still runs keeps its thread until it returns."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _answer_later(self, request: Request, body: bytes) -> None:
        answer = self._replies.answer(request, body)
        task = asyncio.current_task()
        assert task is not None
        if task.cancelling():  # this task cannot wait any more
            other = self._link.loop.create_task(answer)
            self._answering.add(other)
            other.add_done_callback(self._answering.discard)
        else:
            await answer

    def _failed(self, request: Request, error: BaseException) -> None:
        self._link.counters.failed += 1
        if request.wants_answer:  # its caller gets the rest
            log.warning("call of %s from %s raised %s", request.method, request.caller, type_name(type(error)))
        else:
            log.error("cast of %s from %s failed", request.method, request.caller, exc_info=error)

    def _cancelled(self, request: Request, error: asyncio.CancelledError) -> bytes:
        if self.stopping:
            stopped = WorkerLost(f"the server was stopped while it ran {request.method}", maybe_executed=True)
            return refusal(request, stopped)
        self._failed(request, error)
        return failure(request, error, self._link.max_body)

    async def _in_thread(self, method: Method, arguments: dict[str, Any]) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._limit, thread_name_prefix="rpclib-endpoint")
        function = functools.partial(contextvars.copy_context().run, _plain, method.function, **arguments)
        return await self._link.loop.run_in_executor(self._threads, function)


def may_have_run(request: Request) -> WorkerLost:
    """The error for a request that another worker had taken before."""
    return WorkerLost(f"a worker that had taken {request.method} went away; it may have run", maybe_executed=True)


def _plain(function: Callable[..., Any], /, **arguments: Any) -> Any:
    """Call a plain endpoint in its thread."""
    try:
        return function(**arguments)
    except StopIteration as error:  # no future takes one: its caller would wait for ever
        raise RuntimeError("the endpoint raised StopIteration") from error
