"""Answers: what results become, and how an answer finds its way through a troubled connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpclib
from rpclib.testing.inside import inside
from rpclib.wire.answer import Failure, Result, encode_result
from rpclib.wire.kinds import CALL
from tests.support.asking import SHARED, serving
from tests.support.envelopes import encode_request
from tests.support.scripted import turns, until


class Service:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        return value

    @rpclib.expose
    async def wait(self) -> str:
        self.running += 1
        await self.gate.wait()
        return "done"

    @rpclib.expose
    async def odd(self) -> Any:
        return [{"a": object()}]

    @rpclib.expose
    async def big(self) -> Any:
        return 2**64

    @rpclib.expose
    async def long(self, size: int) -> bytes:
        return b"x" * size


# What an endpoint returns.


@pytest.mark.parametrize(
    ("method", "told"),
    [("odd", "the result of odd[0]['a'] is object"), ("big", "64 bits")],
)
async def test_results_that_do_not_travel(method: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Service()) as server:
        failure = await server.refused(method)
        assert failure.code == "SERIALIZATION"
        assert told in failure.message
    assert f"{method} ran, but its result cannot be sent" in caplog.text


async def test_results_up_to_the_limit() -> None:
    async with serving(Service(), max_body=1000) as server:
        for size in range(960, 990):
            found = await server.answer(server.put("long", size=size))
            assert isinstance(found, Result) == (len(encode_result(found.id, b"x" * size)) <= 1000)
            assert len(server.world.sent[-1].body) <= 1000
        assert isinstance(found, Failure)
        assert found.code == "MESSAGE_TOO_LARGE"
        assert "the result of long would make" in found.message


# Answering.


async def test_an_answer_waits_for_a_session_as_long_as_its_caller() -> None:
    service = Service()
    async with serving(service) as server:
        ident, short = server.put("wait"), server.put("wait", remaining=0.05)
        await until(lambda: service.running == 2)
        gate = asyncio.Event()

        async def on_open(host: str) -> None:
            await gate.wait()

        server.world.on_open = on_open
        server.world.session.lose()
        service.gate.set()
        await until(lambda: server.rpc.counters.unanswered == 1)
        gate.set()
        found = await server.answer(ident)
        assert isinstance(found, Result)
        assert not server.answers(short)
        assert len(server.world.sessions) == 2


async def test_an_answer_that_finds_the_session_dead_takes_the_next() -> None:
    service = Service()
    async with serving(service) as server:
        ident = server.put("wait")
        await until(lambda: service.running == 1)
        server.world.session.lose(told=False)
        service.gate.set()
        await server.answer(ident)
        assert len(server.world.sessions) == 2


async def test_an_answer_that_waited_and_then_finds_the_session_dead_takes_the_next() -> None:
    async with serving(Service()) as server:
        server.world.session.gate.full(True)
        ident = server.put("echo", value=1)
        await turns()
        server.world.session.lose(told=False)
        server.world.session.gate.full(False)
        await server.answer(ident)
        assert len(server.world.sessions) == 2


async def test_answers_wait_while_the_session_is_congested() -> None:
    service = Service()
    async with serving(service) as server:
        server.world.session.gate.full(True)
        ids = [server.put("echo", value=number) for number in range(3)]
        late = server.put("echo", remaining=0.02)
        await until(lambda: server.rpc.counters.unanswered == 1)
        server.world.session.gate.full(False)
        for ident in ids:
            await server.answer(ident)
        assert not server.answers(late)


async def test_an_answer_the_driver_refuses_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    def on_send(session: Any, sent: Any) -> None:
        if "caller" in str(sent.address):
            raise rpclib.MessageTooLarge("not today")

    async with serving(Service(), workers=1) as server:
        server.world.on_send = on_send
        server.put("echo")
        await until(lambda: server.rpc.counters.unanswered == 1)
        server.world.on_send = None
        assert await server.ask("echo", value=1) == 1
    assert "no answer to echo from web1:7: not today" in caplog.text
    assert "bug of rpclib" not in caplog.text


async def test_answers_carry_the_tag_of_their_request() -> None:
    async with serving(Service()) as server:
        ident = server.put("echo")
        await server.answer(ident)
        assert [(sent.tag, sent.ttl) for sent in server.world.sent] == [(ident, None)]


async def test_callers_are_many_and_routes_are_bounded() -> None:
    async with serving(Service(), workers=100) as server:
        for number in range(2500):
            body = encode_request(
                CALL, number.to_bytes(16, "big"), "echo", {}, 5.0, f"inbox-{number}", None, None, None, None
            )
            server.world.session.deliver(SHARED, body)
        await until(lambda: len(server.world.sent) == 2500)
        assert len(inside(server.rpc).replies.senders) <= 1000
        assert {sent.address.key for sent in server.world.sent} == {f"inbox-{number}" for number in range(2500)}


async def test_a_reply_to_that_is_no_inbox_is_a_bad_envelope() -> None:
    """A reply_to comes from the wire. It must not make a server write anywhere else, nor run the method."""
    service = Service()
    async with serving(service) as server:
        for reply_to in ("../etc", "Queue", "a b", "?" * 255, "nul\0"):
            body = encode_request(CALL, b"i" * 16, "echo", {}, 5.0, reply_to)
            server.world.session.deliver(SHARED, body)
        await until(lambda: server.rpc.counters.bad_envelopes == 5)
        assert not server.world.sent
        assert await server.ask("echo", value=1) == 1


async def test_context_of_the_request() -> None:
    class Facts:
        @rpclib.expose
        async def facts(self) -> Any:
            context = rpclib.current_context()
            return [dict(context.metadata), context.caller, context.id, context.remaining]

    async with serving(Facts()) as server:
        ident = server.put("facts", context={"trace": "abc"}, waited=1.0)
        found = await server.answer(ident)
        assert isinstance(found, Result)
        metadata, caller, shown, remaining = found.value
        assert (metadata, caller, shown) == ({"trace": "abc"}, "web1:7", ident.hex())
        assert 3 < remaining <= 4
