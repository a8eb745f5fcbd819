"""Casts and fanout: at most once, to one or to all, without waiting for anybody."""

from __future__ import annotations

from contextlib import AsyncExitStack

import rpclib
from rpclib.conformance.harness import Harness
from rpclib.conformance.plugin import needs
from rpclib.conformance.service import Service
from rpclib.driver import Capability


async def test_cast_runs_once(harness: Harness) -> None:
    """Every cast is executed exactly once while nothing fails, by one of the servers."""
    services = [Service(), Service()]
    async with AsyncExitStack() as stack:
        for service, name in zip(services, "ab", strict=True):
            rpc = await stack.enter_async_context(harness.connect())
            await stack.enter_async_context(rpc.server(rpclib.Target("t", server=name), [service]))
        client = (await stack.enter_async_context(harness.connect())).client("t")
        for number in range(200):
            await client.cast("note", value=number)
        await harness.until(lambda: sum(len(service.seen) for service in services) >= 200, "200 casts executed")
        await client.call("echo", value=0)
    assert sorted(services[0].seen + services[1].seen) == list(range(200))


@needs(Capability.ORDERED)
async def test_casts_from_one_client_keep_their_order(harness: Harness) -> None:
    """With one server, casts start in the order in which they were made."""
    service = Service()
    async with harness.connect() as rpc, harness.connect() as other, rpc.server("t", [service]):
        client = other.client("t")
        for number in range(500):
            await client.cast("note", value=number)
        await harness.until(lambda: len(service.seen) == 500, "500 casts executed")
    assert service.seen == list(range(500))


@needs(Capability.UNROUTABLE)
async def test_cast_to_nobody_is_reported(harness: Harness) -> None:
    """A cast that reaches nobody raises nothing; it is counted and given to on_undeliverable."""
    reported: list[rpclib.Undeliverable] = []
    async with harness.connect(on_undeliverable=reported.append) as rpc:
        await rpc.client("nobody").cast("note", value=5)
        await harness.until(lambda: reported, "the report")
        assert (reported[0].method, reported[0].args) == ("note", {"value": 5})
        assert rpc.counters.undeliverable == 1


@needs(Capability.STORES)
async def test_cast_waits_for_its_worker(harness: Harness) -> None:
    """A cast to a topic that was served before is executed by the next server that comes."""
    async with harness.connect() as rpc, harness.connect() as other:
        async with rpc.server("t", [Service()]):
            pass
        await other.client("t").cast("note", value="stored")
        await other.client("t", timeout=0.1).cast("note", value="too")
        service = Service()
        async with rpc.server("t", [service]):
            await harness.until(lambda: len(service.seen) == 2, "both casts executed")
    assert service.seen == ["stored", "too"]


async def test_fanout_reaches_every_server_once(harness: Harness) -> None:
    """Every server of the topic executes a fanout once: also several of one name, or of one transport."""
    services = [Service() for _ in range(4)]
    async with AsyncExitStack() as stack:
        for number, service in enumerate(services[:3]):
            rpc = await stack.enter_async_context(harness.connect())
            await stack.enter_async_context(rpc.server(rpclib.Target("t", server=f"s{number % 2}"), [service]))
        await stack.enter_async_context(rpc.server(rpclib.Target("t", server="s9"), [services[3]]))
        await stack.enter_async_context(rpc.server("elsewhere", [stranger := Service()]))
        client = (await stack.enter_async_context(harness.connect())).client("t")
        for number in range(50):
            await client.fanout("note", value=number)
        await harness.until(lambda: all(len(service.seen) >= 50 for service in services), "all fanouts executed")
        await client.call("echo", value=0)
    assert [sorted(service.seen) for service in services] == [list(range(50))] * 4
    assert stranger.seen == []


async def test_fanout_to_nobody_succeeds(harness: Harness) -> None:
    """A fanout to a topic without servers is no error and disturbs nothing."""
    async with harness.connect() as rpc:
        await rpc.client("nobody").fanout("note", value=1)
        async with rpc.server("t", [Service("ok")]):
            assert await rpc.client("t").call("who") == "ok"
