"""What a stopping server did not start: passed on, answered, or dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpclib
from rpclib.wire.answer import Failure
from rpclib.wire.kinds import CAST
from tests.support.asking import EVERY, OWN, SHARED, Asker, serving
from tests.support.scripted import turns, until


class Service:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.ran: list[Any] = []

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        self.ran.append(value)
        return value

    @rpclib.expose
    async def wait(self) -> str:
        self.running += 1
        await self.gate.wait()
        return "done"


async def hold(server: Asker, service: Service) -> None:
    """Occupy the only worker, so that what comes next waits."""
    server.put("wait")
    await until(lambda: service.running)


async def test_what_was_not_started_goes_to_other_servers_as_it_came() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        call = server.put("echo", waited=1.0, context={"a": 1}, value=1)
        cast = server.put("echo", kind=CAST, remaining=None, value=2)
        directed = server.put("echo", to=OWN, kind=CAST, remaining=None, value=3)
        await until(lambda: server.server.saturated)
        await server.server.stop(grace=0)
        assert service.ran == []
        sent = {request.id: (address, request) for address, request in server.passed_on}
        assert sent.keys() == {call, cast, directed}
        address, request = sent[call]
        assert (address, request.args, request.context, request.reply_to) == (
            SHARED,
            {"value": 1},
            {"a": 1},
            "caller",
        )
        assert request.budget is not None
        assert 3.5 < request.budget <= 4.0
        tags = {one.request.id: (one.tag, one.ttl) for one in server.world.sent if one.address in (SHARED, OWN)}
        assert tags[call][0] == call
        assert tags[call][1] == pytest.approx(request.budget, abs=0.01)
        assert tags[cast] == (b"", None)
        assert sent[directed][0] == OWN


async def test_a_directed_call_is_told_that_its_server_stops() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        ident = server.put("echo", to=OWN)
        await until(lambda: server.server.saturated)
        await server.server.stop(grace=0)
        [failure] = server.answers(ident)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.details) == ("NO_SERVER", {"maybe_executed": False})
        assert "server t.s is stopping and did not run echo" in failure.message


async def test_what_may_have_run_before_is_not_passed_on() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        call = server.put("echo", redelivered=True)
        server.put("echo", redelivered=True, kind=CAST)
        await until(lambda: server.server.saturated)
        await server.server.stop(grace=0)
        assert server.passed_on == []
        [failure] = server.answers(call)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.details) == ("WORKER_LOST", {"maybe_executed": True})
        assert server.rpc.counters.redelivered == 2


async def test_what_is_not_worth_passing_on() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        server.put("echo", to=EVERY, kind=CAST)
        server.put("echo", remaining=1.0, waited=1.0)
        result = b"\x95\x01\x03\xc4\x10" + b"i" * 16 + b"\xc0\x00"
        for body in (b"rubbish", result):
            server.world.session.deliver(SHARED, body)
        await until(lambda: server.server.saturated)
        await server.server.stop(grace=0)
        assert server.passed_on == []
        assert (server.rpc.counters.expired, server.rpc.counters.bad_envelopes) == (1, 2)


async def test_what_can_be_read_but_not_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_again(*_: Any) -> bytes:
        raise rpclib.SerializationError("nested too deep")

    monkeypatch.setattr("rpclib.serving.handover.encode_again", encode_again)
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        server.put("echo")
        await until(lambda: server.server.saturated)
        await server.server.stop(grace=0)
        assert server.passed_on == []
    assert "could not pass on echo: nested too deep" in caplog.text


async def test_passing_on_into_a_dead_session(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        await hold(server, service)
        server.put("echo", kind=CAST)
        server.put("echo", to=OWN)
        await until(lambda: server.server.saturated)
        session = server.world.session
        stopping = asyncio.create_task(server.server.stop(grace=0.05))
        await turns(3)
        session.error = rpclib.ConnectionLost("just now")
        await stopping
        assert server.passed_on == []
        assert server.rpc.counters.unanswered >= 1
        session.error = None
    assert "could not pass on echo: there is no session" in caplog.text


async def test_trays_are_closed() -> None:
    async with serving(Service()) as server:
        trays = [tray for tray in server.world.session.subscriptions if tray.address.topic]
        await server.server.stop()
        assert len(trays) == 3
        assert all(tray.closed for tray in trays)
