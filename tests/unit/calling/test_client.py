"""The client: options, what it sends, deadlines, replies, and cancellation at every stage."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.context import current
from rpclib.testing.inside import inside
from rpclib.wire.kinds import CALL, MAX_BODY
from tests.support.asking import request
from tests.support.calling import Service, connect, reply
from tests.support.calling import driver as driver
from tests.support.envelopes import encode_request
from tests.support.scripted import Scripted, returning, turns, until

# Options.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": 0}, "more than 0"),
        ({"timeout": -1}, "timeout must be a number of seconds, not -1"),
        ({"timeout": math.nan}, "not nan"),
        ({"timeout": math.inf}, "not inf"),
        ({"timeout": 1e9}, "timeout must"),
        ({"timeout": "5"}, "not '5'"),
        ({"timeout": True}, "not True"),
        ({"timeout": None}, "not None"),
        ({"route_grace": -0.1}, "route_grace must"),
        ({"retry": -1}, "retry must"),
        ({"retry": 1.5}, "retry must"),
        ({"retry": True}, "retry must"),
        ({"version": "x"}, "MAJOR"),
        ({"version": 1.2}, "MAJOR"),
        ({"version_cap": "x"}, "MAJOR"),
        ({"namespace": "a b"}, "namespace 'a b' contains ' '"),
        ({"context": None}, "context must be a dict"),
        ({"context": {1: 2}}, "context keys are str"),
        ({"timout": 5}, 'no option "timout"; it has context, namespace, retry'),
    ],
)
def test_options_are_checked_at_once(driver: type[Scripted], options: dict[str, Any], told: str) -> None:
    rpc = connect(driver)
    with pytest.raises(rpclib.ConfigError, match=told):
        rpc.client("t", **options)
    with pytest.raises(rpclib.ConfigError, match=told):
        rpc.client("t").prepare(**options)


def test_a_context_that_does_not_travel_is_told_at_once(driver: type[Scripted]) -> None:
    with pytest.raises(rpclib.SerializationError, match="context a"):
        connect(driver).client("t", context={"a": object()})


def test_prepare_and_to_make_copies(driver: type[Scripted]) -> None:
    client = connect(driver, timeout=7).client(rpclib.Target("t", namespace="n", version="1.1"))
    copy = client.prepare(timeout=3).to("s").prepare(retry=2)
    assert (client.options.timeout, client.options.retry, str(client.target)) == (7, 0, "t")
    assert (copy.options.timeout, copy.options.retry, str(copy.target)) == (3, 2, "t.s")
    assert (copy.options.namespace, copy.options.version) == ("n", "1.1")
    assert "t.s" in repr(copy)
    with pytest.raises(rpclib.ConfigError):
        client.to("a/b")


def test_version_caps(driver: type[Scripted]) -> None:
    client = connect(driver).client("t", version_cap="1.4")
    assert [client.can_send(version) for version in ("1.0", "1.4", "1.5", "2.0", "0.9")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert connect(driver).client("t").can_send("9.9")
    client.prepare(version="1.4")
    for version in ("1.5", "2.0"):
        with pytest.raises(rpclib.UnsupportedVersion, match=r"version_cap 1\.4"):
            client.prepare(version=version)
    with pytest.raises(rpclib.UnsupportedVersion):
        client.prepare(version="1.2").prepare(version_cap="1.1")


# What is sent.


async def test_what_a_call_carries(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    async with connect(driver, exchange="nova") as rpc:
        client = rpc.client("t", version="1.2", namespace="n", context={"a": 1}, timeout=3).to("s")
        call = asyncio.create_task(client.call("m", method="x", self=1))
        await until(lambda: driver.world.sent)
        [sent] = driver.world.sent
        request = sent.request
        assert sent.address == Address(Kind.ONE, "nova", "t", "s")
        assert (request.kind, request.method, request.args) == (CALL, "m", {"method": "x", "self": 1})
        assert (request.version, request.namespace, request.context) == ("1.2", "n", {"a": 1})
        assert (request.reply_to, request.caller) == (inside(rpc).link.inbox.key, inside(rpc).link.caller)
        assert sent.tag == request.id
        assert sent.ttl is not None
        assert request.budget is not None
        assert 2.9 < request.budget <= sent.ttl <= 3
        reply(driver.world, request, "done")
        assert await call == "done"
        await client.cast("m")
        await client.fanout("m")
        for sent, address in zip(driver.world.sent[1:], (client.target.one(), client.target.all()), strict=True):
            assert (sent.address, sent.ttl, sent.tag) == (address, None, b"")
            assert (sent.request.budget, sent.request.reply_to, sent.request.version) == (None, None, "1.2")
        assert len({sent.request.id for sent in driver.world.sent}) == 3


async def test_calling_makes_nothing_happen_until_it_is_awaited(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc:
        coroutine = rpc.client("t").call("m")
        await turns()
        assert not driver.world.sent
        coroutine.close()


async def test_arguments_that_cannot_be_sent(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc:
        client = rpc.client("t")
        for send in (client.call, client.cast, client.fanout):
            with pytest.raises(rpclib.SerializationError, match="argument a"):
                await send("m", a=object())
            with pytest.raises(rpclib.SerializationError, match=r"arguments of m: .*64 bits"):
                await send("m", a=2**64)
            with pytest.raises(rpclib.MessageTooLarge, match=rf"arguments of m would .* at most {driver.max_body}"):
                await send("m", a=b"x" * driver.max_body)
        assert not driver.world.sent
        assert not inside(rpc).calls.table


async def test_the_limit_is_the_sessions(driver: type[Scripted]) -> None:
    driver.max_body = 1 << 30
    async with connect(driver) as rpc:
        assert inside(rpc).link.max_body == MAX_BODY


# Deadlines.


async def test_what_the_served_request_has_left_bounds_calls_made_in_it(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()]):
        token = current.set(request(monotonic() + 0.1, context={"trace": "x"}))
        try:
            with pytest.raises(rpclib.CallTimeout):
                await rpc.client("t", timeout=100).call("hang")
            assert (driver.world.requests[0].budget or 9) <= 0.1
            with pytest.raises(rpclib.CallTimeout, match="echo to t was not sent: the call being served"):
                await rpc.client("t", timeout=100).call("echo")
            await rpc.client("t").cast("echo")
        finally:
            current.reset(token)
        assert len(driver.world.requests) == 2
        assert {request.context["trace"] for request in driver.world.requests if request.context} == {"x"}
        assert not inside(rpc).calls.table


async def test_waiting_for_a_session_counts(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()]):
        driver.world.session.gate.full(True)
        began = monotonic()
        call = asyncio.create_task(rpc.client("t", timeout=0.3).call("hang"))
        await asyncio.sleep(0.15)
        driver.world.session.gate.full(False)
        with pytest.raises(rpclib.CallTimeout):
            await call
        assert 0.29 < monotonic() - began < 3
        assert (driver.world.requests[0].budget or 9) <= 0.16


@pytest.mark.parametrize("timeout", [1e-9, 0.0005])
async def test_a_tiny_timeout_is_a_timeout(driver: type[Scripted], timeout: float) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()]):
        with pytest.raises(rpclib.CallTimeout):
            await rpc.client("t", timeout=timeout).call("hang")


async def test_a_huge_timeout_is_fine(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()]):
        assert await rpc.client("t", timeout=1e9 - 1, route_grace=1e9 - 1).call("echo", value=1) == 1


# Replies.


async def test_late_and_duplicate_replies_are_counted(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: driver.world.requests)
        for value in (1, 2):
            reply(driver.world, driver.world.requests[0], value)
        assert await call == 1
        reply(driver.world, driver.world.requests[0], 3)
        await until(lambda: inside(rpc).calls.late == 2)


async def test_rubbish_in_the_inbox_is_counted(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()]):
        inbox = Address.inbox(inside(rpc).link.inbox.key or "")
        request = encode_request(CALL, b"i" * 16, "m", {}, 1.0, "x", None, None, None, None)
        for body in (b"rubbish", request, b"\x93" + b"\x91" * 1010):
            driver.world.session.deliver(inbox, body)
        await until(lambda: rpc.counters.bad_envelopes == 3)
        assert await rpc.client("t").call("echo", value=1) == 1


# Cancellation.


@pytest.mark.parametrize("stage", ["disconnected", "congested", "in flight", "returned", "repeating"])
async def test_a_cancelled_call_leaves_nothing(driver: type[Scripted], stage: str) -> None:
    world = driver.world
    async with connect(driver) as rpc:
        client, gate = rpc.client("t", retry=1 if stage == "repeating" else 0), asyncio.Event()

        async def on_open(host: str) -> None:
            await gate.wait()

        if stage == "disconnected":
            world.on_open = on_open
            world.session.lose()
        elif stage == "congested":
            world.session.gate.full(True)
        elif stage == "returned":
            returning(world)
        tasks = [asyncio.create_task(client.call("m"))]
        tasks += [asyncio.create_task(client.cast("m"))] if stage in ("disconnected", "congested") else []
        if stage == "repeating":
            await until(lambda: world.requests)
            world.session.lose()
            await until(lambda: len(world.requests) == 2)
        await turns()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not inside(rpc).calls.table
        gate.set()
        world.session.gate.full(False)
        await turns()
        assert len(world.requests) == {"in flight": 1, "returned": 1, "repeating": 2}.get(stage, 0)


async def test_a_cancelled_call_still_counts_its_reply_as_late(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: driver.world.requests)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        reply(driver.world, driver.world.requests[0], 1)
        await until(lambda: inside(rpc).calls.late == 1)


async def test_many_at_once(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc, rpc.server("t", [Service()], workers=10):
        client = rpc.client("t")
        calls = [asyncio.create_task(client.call("echo", value=number)) for number in range(500)]
        for call in calls[::3]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        for number, result in enumerate(done):
            assert result == number or (number % 3 == 0 and isinstance(result, asyncio.CancelledError))
        assert not inside(rpc).calls.table
