"""Where requests run: in real tasks that all servers share, and on threads; never in each other's context."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading

import pytest

import rpclib
from rpclib.wire.answer import Result
from tests.support.asking import serving
from tests.support.scripted import until

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="clean")


class Where:
    @rpclib.expose
    async def stain(self) -> tuple[str, str]:
        before = seen.get()
        seen.set("stained")
        return before, rpclib.current_context().method

    @rpclib.expose
    def stain_plain(self) -> tuple[str, str]:
        before = seen.get()
        seen.set("stained")
        return before, rpclib.current_context().method

    @rpclib.expose
    def thread(self) -> tuple[str, bool]:
        return threading.current_thread().name, threading.current_thread() is threading.main_thread()

    @rpclib.expose
    async def timed(self) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return ""


class Hanging:
    """Its method waits until it may go on."""

    def __init__(self) -> None:
        self.running = False
        self.go_on = asyncio.Event()

    @rpclib.expose
    async def hang(self) -> str:
        self.running = True
        await self.go_on.wait()
        return "done"


@pytest.mark.parametrize("method", ["stain", "stain_plain"])
async def test_each_request_has_a_context_of_its_own(method: str) -> None:
    async with serving(Where(), workers=1) as server:
        for _ in range(3):
            assert await server.ask(method) == ["clean", method]
        assert seen.get() == "clean"


async def test_who_sends_in_the_same_process_lends_no_context() -> None:
    async with serving(Where(), workers=1) as server:
        token = seen.set("the sender's")
        try:
            assert await server.ask("stain") == ["clean", "stain"]
        finally:
            seen.reset(token)


async def test_one_crew_serves_all_servers_of_a_transport() -> None:
    class Names:
        @rpclib.expose
        async def task(self) -> int:
            return id(asyncio.current_task())

        @rpclib.expose
        async def suspended(self) -> int:
            await together.wait()
            return id(asyncio.current_task())

    together = asyncio.Barrier(10)
    async with rpclib.connect("fake://crew") as rpc, contextlib.AsyncExitStack() as servers:
        for number in range(10):
            await servers.enter_async_context(rpc.server(f"t{number}", [Names()], workers=1))
        clients = [rpc.client(f"t{number}") for number in range(10)]
        assert len(set(await asyncio.gather(*(client.call("task") for client in clients)))) == 1
        assert len(set(await asyncio.gather(*(client.call("suspended") for client in clients)))) == 10


async def test_a_server_that_stops_ends_only_its_own_requests() -> None:
    first, second = Hanging(), Hanging()
    async with rpclib.connect("fake://crew", route_grace=0) as rpc:
        stopped, other = rpc.server("a", [first], grace=0), rpc.server("b", [second])
        await stopped.start()
        await other.start()
        calls = [asyncio.create_task(rpc.client(topic).call("hang")) for topic in ("a", "b")]
        await until(lambda: first.running and second.running)
        await stopped.stop()
        with pytest.raises(rpclib.WorkerLost):
            await calls[0]
        assert not calls[1].done()
        second.go_on.set()
        assert await calls[1] == "done"


async def test_a_burst_of_requests_keeps_contexts_apart() -> None:
    async with serving(Where(), workers=50) as server:
        ids = [server.put(method) for _ in range(20) for method in ("stain", "stain_plain", "timed")]
        found = [await server.answer(ident) for ident in ids]
        values = [one.value for one in found if isinstance(one, Result)]
        assert values == [["clean", "stain"], ["clean", "stain_plain"], "timed out"] * 20


async def test_plain_functions_run_on_threads_that_end_with_the_server() -> None:
    async with serving(Where(), workers=2) as server:
        names = {(await server.ask("thread"))[0] for _ in range(10)}
        assert all(name.startswith("rpclib-endpoint") for name in names)
        assert (await server.ask("thread"))[1] is False
        assert len(names) <= 2
    for thread in threading.enumerate():
        if thread.name.startswith("rpclib-endpoint"):
            thread.join(5)
            assert not thread.is_alive()
