"""Calls: they return what the endpoint returned, on time, from the right server."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import uuid
from contextlib import AsyncExitStack

import pytest

import rpclib
from rpclib.conformance.harness import Harness
from rpclib.conformance.plugin import needs
from rpclib.conformance.service import Caller, Service
from rpclib.driver import Capability
from rpclib.testing.inside import inside

VALUES = [
    None,
    True,
    -(2**63),
    2**64 - 1,
    1.5,
    "",
    "žluťoučký \U0001f40e",
    b"",
    bytes(range(256)),
    [],
    [1, [2, [3]]],
    {"a": 1, 7: {"b": None}},
    dt.datetime(2024, 2, 29, 12, 0, 0, 123456, dt.UTC),
    dt.datetime(1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45))),
    dt.date(9999, 12, 31),
    dt.timedelta(days=-1, microseconds=1),
    uuid.UUID(int=2**127 + 1),
    decimal.Decimal("-0.10"),
    {1, "two", b"three"},
    "x" * 300_000,
]


@needs(Capability.ALL_TYPES)
async def test_call_returns_the_result(harness: Harness) -> None:
    """What the endpoint returned comes back equal, for every documented type, empty and large.

    If this fails for long values only, look at how the driver splits and joins messages.
    """
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [Service()]):
        client = other.client("t")
        for value in VALUES:
            assert await client.call("echo", value=value) == value
        assert await client.call("echo", value=(1, (2,))) == [1, [2]]


async def test_call_ends_by_its_deadline(harness: Harness) -> None:
    """A call to a server that does not answer raises CallTimeout at its deadline, not later."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service]):
        began = harness.now()
        with pytest.raises(rpclib.CallTimeout, match="wait"):
            await other.client("t", timeout=0.3).call("wait")
        assert 0.25 < harness.now() - began < 3
        service.gate.set()
        assert await other.client("t").call("wait", value=1) == 1


async def test_expired_work_is_not_started(harness: Harness) -> None:
    """A request that waited longer than its caller does is dropped, not run.

    The only worker is busy until the second call's budget is used up, with a margin for the time on the way, which
    nobody sees. A driver without EXPIRES delivers that request late; the core must see its age through
    `Delivery.waited`, or the driver must not deliver it.
    """
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service], workers=1):
        client = other.client("t")
        first = asyncio.create_task(client.call("wait"))
        await harness.until(lambda: service.started == 1)
        with pytest.raises(rpclib.CallTimeout):
            await client.prepare(timeout=0.2).call("note", value="expired")
        over = harness.now() + 0.5
        await harness.until(lambda: harness.now() > over)
        service.gate.set()
        await first
        await client.call("note", value="fresh")
        assert service.seen == [None, "fresh"]


async def test_nested_call_inherits_the_deadline(harness: Harness) -> None:
    """A call made while serving a call gets at most what the outer one has left, whatever its own timeout."""
    async with harness.connect() as rpc, rpc.server("inner", [Service()]):
        inner = rpc.client("inner", timeout=1000)
        async with rpc.server("outer", [Caller(inner)]):
            facts = await rpc.client("outer", timeout=5).call("nested")
            assert 0 < facts["remaining"] <= 5
    with pytest.raises(rpclib.RpcError, match="no request"):
        rpclib.current_context()


async def test_context_reaches_nested_calls(harness: Harness) -> None:
    """Context metadata arrives, in coroutines and plain functions, and travels on with nested calls."""
    async with harness.connect() as rpc, rpc.server("inner", [Service()]):
        inner = rpc.client("inner", context={"own": 2})
        async with rpc.server("outer", [Caller(inner)]):
            outer = rpc.client("outer", context={"trace": "abc"})
            assert (await outer.call("nested"))["metadata"] == {"trace": "abc", "own": 2}
        assert (await inner.prepare(context={"a": 1}).call("plain"))["metadata"] == {"a": 1}
        assert (await inner.call("facts"))["metadata"] == {"own": 2}


async def test_one_of_many_gets_each_call(harness: Harness) -> None:
    """Each call runs on exactly one of a topic's servers, and every server gets some of them."""
    services = [Service(name) for name in "abc"]
    async with AsyncExitStack() as stack:
        for service in services:
            rpc = await stack.enter_async_context(harness.connect())
            await stack.enter_async_context(rpc.server(rpclib.Target("t", server=service.name), [service]))
        client = (await stack.enter_async_context(harness.connect())).client("t")
        answers = await asyncio.gather(*(client.call("who") for _ in range(90)))
    assert [len(service.seen) for service in services] == [answers.count(name) for name in "abc"]
    assert all(service.seen for service in services)


async def test_directed_call_reaches_only_its_server(harness: Harness) -> None:
    """`to(server)` reaches that server; one that does not exist is not replaced by another."""
    async with AsyncExitStack() as stack:
        for name in ("a", "a.b", "b:1@x"):
            rpc = await stack.enter_async_context(harness.connect())
            await stack.enter_async_context(rpc.server(rpclib.Target("t", server=name), [Service(name)]))
        other = await stack.enter_async_context(harness.connect(timeout=2, route_grace=0.1))
        for name in ("a", "a.b", "b:1@x"):
            client = other.client("t").to(name)
            assert [await client.call("who") for _ in range(5)] == [name] * 5
        with pytest.raises((rpclib.NoServer, rpclib.CallTimeout)):
            await other.client("t").to("c").call("who")


async def test_concurrent_calls_get_their_own_replies(harness: Harness) -> None:
    """Hundreds of calls in flight, answered out of order, each get their own reply."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service], workers=300):
        client = other.client("t")
        held = [asyncio.create_task(client.call("wait", value=number)) for number in range(100)]
        quick = [client.call("echo", value=number) for number in range(500)]
        assert await asyncio.gather(*quick) == list(range(500))
        service.gate.set()
        assert await asyncio.gather(*held) == list(range(100))


@needs(Capability.UNROUTABLE)
async def test_no_server_is_told(harness: Harness) -> None:
    """A call to an address nobody ever served is NoServer, long before its deadline, and surely not executed."""
    async with harness.connect(route_grace=0.2) as rpc:
        began = harness.now()
        with pytest.raises(rpclib.NoServer, match="nobody") as caught:
            await rpc.client("nobody").call("who")
        assert not caught.value.maybe_executed
        assert 0.15 < harness.now() - began < 5


@needs(Capability.UNROUTABLE)
async def test_late_server_within_grace_is_found(harness: Harness) -> None:
    """A call that finds no server is tried again, so a server that starts within the grace still gets it, once."""
    service = Service("late")
    async with harness.connect(route_grace=8) as rpc, harness.connect() as other:
        call = asyncio.create_task(rpc.client("t").call("who"))
        await harness.until(
            lambda: any(item.resends for item in inside(rpc).calls.table.values()), "the first resend"
        )
        async with other.server("t", [service]):
            assert await call == "late"
    assert service.seen == ["who"]


@needs(Capability.PRESENCE)
async def test_departed_server_is_told(harness: Harness) -> None:
    """A call to an address whose servers all left ends with NoServer long before its deadline."""
    async with harness.connect() as rpc, harness.connect(timeout=25, route_grace=0.1) as other:
        async with rpc.server("t", [Service("here")]):
            assert await other.client("t").call("who") == "here"
        with pytest.raises(rpclib.NoServer):
            await other.client("t").call("who")


@needs(Capability.PEER_LOSS)
async def test_lost_worker_is_told(harness: Harness) -> None:
    """When the session that took a call ends, its caller hears WorkerLost(maybe_executed=True) at once."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service]):
        call = asyncio.create_task(other.client("t").call("wait"))
        await harness.until(lambda: service.started == 1)
        harness.sever(rpc)
        with pytest.raises(rpclib.WorkerLost) as caught:
            await call
        assert caught.value.maybe_executed
        service.gate.set()


@needs(Capability.REDELIVERS)
async def test_redelivered_call_is_not_run_again(harness: Harness) -> None:
    """Messages that a lost session had not taken go to another server marked as redelivered. They may have run,
    so they are not executed and their callers are told; only idempotent methods run."""
    first, second = Service("first"), Service("second")
    async with harness.connect() as rpc, harness.connect() as spare, harness.connect() as other:
        async with rpc.server(rpclib.Target("t", server="a"), [first], workers=1):
            client = other.client("t", timeout=5)
            running = asyncio.create_task(client.call("wait"))
            await harness.until(lambda: first.started == 1)
            once = asyncio.create_task(client.call("note", value="once"))
            await harness.until(lambda: len(inside(other).calls.table) == 2)
            await harness.until_held(rpc)
            async with spare.server(rpclib.Target("t", server="b"), [second]):
                harness.sever(rpc)
                with pytest.raises(rpclib.WorkerLost) as caught:
                    await once
                assert caught.value.maybe_executed
                assert second.seen == []
            first.gate.set()
            await asyncio.gather(running, return_exceptions=True)
