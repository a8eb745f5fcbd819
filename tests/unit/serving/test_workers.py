"""Running requests: what an endpoint may do to itself and to nobody else, and what its caller is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import rpclib
from rpclib import errors
from rpclib.driver import Delivery
from rpclib.errors import type_name
from rpclib.wire.answer import Failure, Result
from rpclib.wire.envelope import decode
from rpclib.wire.kinds import CAST
from tests.support.asking import EVERY, OWN, SHARED, serving
from tests.support.scripted import turns, until


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Loaded(Exception):
    """Registered; carries what it is given."""


class Denied(rpclib.AccessDenied):
    """Travels as what it extends."""


class Hidden(rpclib.RpcError):
    code = "HIDDEN"


RAISES: dict[str, Callable[[], BaseException]] = {
    "system exit": lambda: SystemExit(3),
    "base": lambda: BaseException("base"),
    "cancelled": lambda: asyncio.CancelledError("mine"),
    "generator exit": lambda: GeneratorExit(),
    "stop": lambda: StopIteration("over"),
    "stop async": lambda: StopAsyncIteration("over"),
    "wordless": lambda: Wordless(),
    "surrogates": lambda: ValueError("a\ud800b"),
    "long": lambda: ValueError("x" * 10**6),
    "memory": lambda: MemoryError(),
    "loaded": lambda: Loaded("a", 1, [2.5]),
    "loaded with object": lambda: Loaded(object()),
    "loaded with surrogate": lambda: Loaded("\ud800"),
    "loaded too much": lambda: Loaded("x" * 2_000_000),
    "denied": lambda: Denied("not you"),
    "denied wordless": lambda: rpclib.AccessDenied("\ud800"),
    "denied at length": lambda: rpclib.AccessDenied("x" * 2_000_000),
    "hidden": lambda: Hidden("mine"),
    "nested no server": lambda: rpclib.NoServer("inner", maybe_executed=False),
    "nested timeout": lambda: rpclib.CallTimeout("inner"),
}


class Service:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.most = 0
        self.ran: list[Any] = []

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        self.ran.append(value)
        return value

    @rpclib.expose(idempotent=True)
    async def again(self, value: Any = None) -> Any:
        self.ran.append(value)
        return value

    @rpclib.expose
    async def wait(self) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        return "done"

    @rpclib.expose
    async def throw(self, what: str) -> None:
        raise RAISES[what]()

    @rpclib.expose
    def throw_plain(self, what: str) -> None:
        raise RAISES[what]()

    @rpclib.expose
    async def cancel_me(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @rpclib.expose
    async def cancel_and_carry_on(self) -> str:
        try:
            await self.cancel_me()
        except asyncio.CancelledError:
            return "still here"
        return ""

    @rpclib.expose
    async def leak(self) -> None:
        self.task = asyncio.current_task()

    @rpclib.expose
    async def timed(self) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return ""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "REGISTERED", {})
    monkeypatch.setattr("rpclib.serving.replies.REGISTERED", {type_name(Loaded): Loaded})


# What an endpoint raises.


@pytest.mark.parametrize("method", ["throw", "throw_plain"])
@pytest.mark.parametrize("what", RAISES)
async def test_whatever_is_raised_is_told_and_the_worker_lives(what: str, method: str) -> None:
    async with serving(Service(), workers=1) as server:
        failure = await server.refused(method, what=what)
        assert failure.code in ("REMOTE", "ACCESS_DENIED")
        assert failure.message is not None
        assert len(server.world.sent[-1].body) < 200_000
        assert await server.ask("echo", value=1) == 1
        server.put(method, kind=CAST, what=what)
        assert await server.ask("echo", value=2) == 2
        assert server.rpc.counters == rpclib.Counters(failed=2)


@pytest.mark.parametrize(
    ("what", "code", "type", "message"),
    [
        ("system exit", "REMOTE", "builtins.SystemExit", "3"),
        ("cancelled", "REMOTE", "asyncio.exceptions.CancelledError", "mine"),
        ("wordless", "REMOTE", f"{__name__}.Wordless", "(its __str__ raised)"),
        ("surrogates", "REMOTE", "builtins.ValueError", "a\\ud800b"),
        ("denied", "ACCESS_DENIED", "", "not you"),
        ("denied wordless", "ACCESS_DENIED", "", "\\ud800"),
        ("hidden", "REMOTE", f"{__name__}.Hidden", "mine"),
        ("nested no server", "REMOTE", "rpclib.errors.NoServer", "inner"),
        ("nested timeout", "REMOTE", "rpclib.errors.CallTimeout", "inner"),
    ],
)
async def test_what_arrives_of_it(what: str, code: str, type: str, message: str) -> None:
    async with serving(Service()) as server:
        failure = await server.refused("throw", what=what)
        assert (failure.code, failure.type, failure.message) == (code, type, message)
        assert failure.args is None
        assert ("in throw" in failure.traceback) == (code == "REMOTE")


@pytest.mark.parametrize(
    ("what", "args"),
    [
        ("loaded", ["a", 1, [2.5]]),
        ("loaded with object", None),
        ("loaded with surrogate", None),
        ("loaded too much", None),
        ("surrogates", None),
    ],
)
async def test_args_of_registered_exceptions_travel_if_they_can(what: str, args: Any) -> None:
    async with serving(Service()) as server:
        assert (await server.refused("throw", what=what)).args == args


async def test_stop_iteration_of_a_plain_endpoint_is_told() -> None:
    async with serving(Service()) as server:
        failure = await server.refused("throw_plain", what="stop")
        assert failure.type == "builtins.RuntimeError"
        assert "StopIteration: over" in failure.traceback


async def test_failing_casts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Service()) as server:
        server.put("throw", kind=CAST, what="hidden")
        server.put("nothing", kind=CAST)
        await server.ask("echo")
    assert "cast of throw from web1:7 failed" in caplog.text
    assert "cast of nothing from web1:7 not run: no method" in caplog.text
    assert not [sent for sent in server.world.sent if isinstance(sent.message, Result) and sent.message.value]


async def test_an_endpoint_that_cancels_itself_costs_nobody_else() -> None:
    async with serving(Service(), workers=1) as server:
        failure = await server.refused("cancel_me")
        assert failure.type == "asyncio.exceptions.CancelledError"
        assert await server.ask("cancel_and_carry_on") == "still here"
        assert await server.ask("timed") == "timed out"
        for number in range(5):
            assert await server.ask("echo", value=number) == number


async def test_a_task_that_is_cancelled_after_its_request_takes_no_other_with_it() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await server.ask("leak")
        body = server.body("echo", value=1)
        server.server._running.start(Delivery(body))  # wakes the worker that waits
        assert service.task is not None
        service.task.cancel()  # before it has begun
        found = await server.answer(decode(body).id)
        assert isinstance(found, Result)
        assert await server.ask("echo", value=2) == 2


# What is run.


async def test_workers_are_a_bound_over_all_addresses() -> None:
    service = Service()
    async with serving(service, workers=3) as server:
        ids = [server.put("wait", to=to) for to in (SHARED, OWN, EVERY) for _ in range(4)]
        await until(lambda: service.running == 3)
        await turns()
        assert service.running == 3
        assert server.server.saturated
        service.gate.set()
        for ident in ids:
            await server.answer(ident)
        assert service.most == 3
        assert not server.server.saturated


async def test_redelivered_requests_run_only_if_idempotent() -> None:
    service = Service()
    async with serving(service) as server:
        failure = await server.refused("echo", redelivered=True, value=1)
        assert (failure.code, failure.details) == ("WORKER_LOST", {"maybe_executed": True})
        server.put("echo", redelivered=True, kind=CAST, value=2)
        assert await server.ask("again", redelivered=True, value=3) == 3
        assert service.ran == [3]
        assert server.rpc.counters.redelivered == 2


async def test_expired_requests_are_neither_run_nor_answered() -> None:
    service = Service()
    async with serving(service) as server:
        late = [server.put("echo", remaining=1.0, waited=1.0), server.put("nothing", remaining=0.5, waited=9.0)]
        assert await server.ask("echo", remaining=1.0, waited=0.5, value=1) == 1
        server.put("echo", kind=CAST, remaining=None, waited=1e6, value=2)
        await until(lambda: service.ran == [1, 2])
        assert server.rpc.counters.expired == 2
        assert not any(server.answers(ident) for ident in late)


async def test_rubbish_is_counted_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Service()) as server:
        for body in (b"", b"\xc1", b"\x93" + b"\x91" * 1010, b"\x95\x01\x03\xc4\x10" + b"i" * 16 + b"\xc0\x00"):
            server.world.session.deliver(SHARED, body)
        assert await server.ask("echo", value=1) == 1
        assert server.rpc.counters.bad_envelopes == 4
    assert caplog.text.count("dropped a message") == 4


async def test_refusals(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Service()) as server:
        assert (await server.refused("nothing")).code == "NO_SUCH_METHOD"
        assert (await server.refused("echo", x=1)).code == "INVALID_ARGUMENTS"
        assert (await server.refused("x" * 10**5)).code == "NO_SUCH_METHOD"
        assert (await server.refused("echo", **{"y" * 10**5: 1})).code == "INVALID_ARGUMENTS"
        assert max(len(sent.body) for sent in server.world.sent) < 2000


@pytest.mark.parametrize("another_runs", [False, True])
async def test_what_was_taken_but_not_begun_when_the_workers_end_is_told(another_runs: bool) -> None:
    service = Service()
    async with serving(service) as server:
        if another_runs:  # which the end waits for, while the crew goes on
            server.put("wait")
            await until(lambda: service.running)
        call, cast = server.body("echo"), server.body("echo", kind=CAST)
        server.server._running.start(Delivery(call))
        server.server._running.start(Delivery(cast))
        await server.server._running.close()
        [failure] = server.answers(decode(call).id)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.details) == ("WORKER_LOST", {"maybe_executed": False})
        assert service.ran == []
