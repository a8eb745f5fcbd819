"""Connections and servers: bounds, stopping, and coming back after a loss."""

from __future__ import annotations

import asyncio

import pytest

import rpclib
from rpclib.conformance.harness import Harness
from rpclib.conformance.plugin import needs
from rpclib.conformance.service import Service
from rpclib.driver import Capability
from rpclib.testing.inside import inside


async def test_workers_bound_concurrency(harness: Harness) -> None:
    """At most `workers` requests of a server run at a time, over all its addresses together."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other:
        async with rpc.server(rpclib.Target("t", server="a"), [service], workers=3):
            client = other.client("t")
            calls = [asyncio.create_task(client.call("wait")) for _ in range(8)]
            calls += [asyncio.create_task(client.to("a").call("wait")) for _ in range(8)]
            await client.fanout("wait")
            await harness.until(lambda: service.started == 3)
            service.gate.set()
            await asyncio.gather(*calls)
            await harness.until(lambda: service.started == 17)
    assert service.most <= 3


async def test_plain_functions_do_not_block(harness: Harness) -> None:
    """Plain endpoints run beside the loop, with the context and deadline of their request."""
    async with harness.connect() as rpc, rpc.server("t", [Service()]):
        facts = await rpc.client("t", timeout=7, context={"k": "v"}).call("plain")
        assert facts["metadata"] == {"k": "v"}
        assert 0 < facts["remaining"] <= 7
        assert facts["main"] is False


async def test_graceful_stop_finishes_what_runs(harness: Harness) -> None:
    """A stopping server answers what it runs; what it had not started is run by it or by another server."""
    first, second = Service("first"), Service("second")
    async with harness.connect() as rpc, harness.connect() as spare, harness.connect() as other:
        server = rpc.server(rpclib.Target("t", server="a"), [first], workers=2, grace=10)
        await server.start()
        client = other.client("t")
        calls = [asyncio.create_task(client.call("wait", value=number)) for number in range(6)]
        await harness.until(lambda: first.started == 2)
        async with spare.server(rpclib.Target("t", server="b"), [second], workers=10):
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
            first.gate.set()
            second.gate.set()
            await stopping
            assert sorted(await asyncio.gather(*calls)) == list(range(6))
            assert await client.call("who") == "second"
    assert sorted(first.seen + second.seen, key=str) == [0, 1, 2, 3, 4, 5, "who"]


async def test_stop_passes_on_what_it_cannot_start(harness: Harness) -> None:
    """What a stopping server has no time to start goes to another server as a new message, and runs there once."""
    first, second = Service("first"), Service("second")
    async with harness.connect() as rpc, harness.connect() as spare, harness.connect() as other:
        server = rpc.server(rpclib.Target("t", server="a"), [first], workers=1)
        await server.start()
        client = other.client("t")
        stuck = asyncio.create_task(client.call("wait"))
        await harness.until(lambda: first.started == 1)
        waiting = asyncio.create_task(client.call("note", value="passed on"))
        await harness.until_held(rpc)
        async with spare.server(rpclib.Target("t", server="b"), [second]):
            await server.stop(grace=0)
            await waiting
            with pytest.raises(rpclib.WorkerLost) as caught:
                await stuck
            assert caught.value.maybe_executed
    assert (first.seen, second.seen) == ([], ["passed on"])


async def test_lost_connection_fails_calls_at_once(harness: Harness) -> None:
    """When the caller's session ends, its calls in flight fail at once and say that they may have run."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service]):
        calls = [asyncio.create_task(other.client("t").call("wait")) for _ in range(3)]
        await harness.until(lambda: service.started == 3)
        harness.sever(other)
        for call in calls:
            with pytest.raises(rpclib.ConnectionLost) as caught:
                await call
            assert caught.value.maybe_executed
        service.gate.set()


async def test_everything_comes_back_after_a_loss(harness: Harness) -> None:
    """After the sessions of client and server were lost, calls, directed calls and fanout work without help."""
    service = Service("back")
    async with harness.connect() as rpc, harness.connect() as other:
        async with rpc.server(rpclib.Target("t", server="a"), [service]):
            for _ in range(3):
                harness.sever(rpc)
                harness.sever(other)
                await harness.until(
                    lambda: inside(rpc).connection.driver and inside(other).connection.driver, "both open again"
                )
                client = other.client("t", retry=3)
                assert await client.call("who") == "back"
                assert await client.to("a").call("who") == "back"
                service.seen.clear()
                await client.fanout("note", value=1)
                await harness.until(lambda: service.seen == [1], "the fanout")
            assert rpc.counters.reconnects == 3


async def test_sends_wait_for_the_connection(harness: Harness) -> None:
    """A call or cast made while there is no session waits for the next one instead of failing."""
    service = Service("back")
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service]):
        await harness.lose(other)
        await other.client("t").cast("note", value=1)
        await harness.until(lambda: 1 in service.seen, "the cast")
        await harness.lose(other)
        assert await other.client("t").call("who") == "back"


@needs(Capability.EXCHANGES)
async def test_exchanges_isolate(harness: Harness) -> None:
    """The same topic and server name in two exchanges are two services, for calls, casts and fanout."""
    left, right = Service("left"), Service("right")
    async with harness.connect() as rpc, harness.connect(exchange=harness.exchange + "-2") as other:
        async with rpc.server("t", [left]), other.server("t", [right]):
            assert {await rpc.client("t").call("who") for _ in range(10)} == {"left"}
            assert {await other.client("t").call("who") for _ in range(10)} == {"right"}
            await rpc.client("t").fanout("note", value=1)
            await harness.until(lambda: 1 in left.seen)
            assert await other.client(rpclib.Target("t", exchange=harness.exchange)).call("who") == "left"
    assert 1 not in right.seen


async def test_transports_share_nothing(harness: Harness) -> None:
    """Closing one transport, with its servers, leaves another of the same process as it is."""
    service = Service("stays")
    async with harness.connect() as rpc, rpc.server("t", [service]):
        async with harness.connect() as short, short.server("t", [Service("goes")]):
            assert await short.client("t").call("who") in ("stays", "goes")
        assert {await rpc.client("t").call("who") for _ in range(10)} == {"stays"}


async def test_close_ends_everything(harness: Harness) -> None:
    """Closing ends calls in flight with TransportClosed, and later use too; no task is left."""
    service = Service()
    async with harness.connect() as rpc, rpc.server("t", [service]):
        other = harness.connect()
        await other.open()
        call = asyncio.create_task(other.client("t").call("wait"))
        await harness.until(lambda: service.started == 1)
        await other.close()
        await other.close()
        for ended in (call, other.client("t").call("who"), other.client("t").cast("who")):
            with pytest.raises(rpclib.TransportClosed):
                await ended
        service.gate.set()
