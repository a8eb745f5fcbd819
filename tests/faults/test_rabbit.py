"""RabbitMQ breaks under load; clients, servers and the reply path come back by themselves; nothing runs twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import rpclib
from rpclib.url import Host, TransportURL
from tests.support.load import Load, Worker
from tests.support.proxy import Proxy
from tests.support.rabbit import USER, Rabbit, running

pytestmark = pytest.mark.timeout(120)

CONSUMERS = ["load", "load.a", "load.b"]


@asynccontextmanager
async def loaded(url: str, exchange: str, client_url: str | None = None) -> AsyncIterator[Load]:
    """Two servers and a client, each with a connection of its own, and calls flowing."""
    workers = [Worker(), Worker()]
    async with (
        rpclib.connect(url, exchange=exchange) as one,
        rpclib.connect(url, exchange=exchange) as two,
        rpclib.connect(client_url or url, exchange=exchange) as client,
        one.server(rpclib.Target("load", server="a"), [workers[0]]),
        two.server(rpclib.Target("load", server="b"), [workers[1]]),
        Load(client, workers) as load,
    ):
        await load.progress()
        yield load
        await load.progress()


async def one_consumer_each(rabbit: Rabbit, exchange: str) -> None:
    """As the broker sees it: one consumer for each subscription."""
    deadline = time.monotonic() + 20
    while True:
        rows = await rabbit.list("queues", "name", "consumers")
        found = {row["name"]: row["consumers"] for row in rows if row["name"].startswith(exchange + ".")}
        if found == {f"{exchange}.load": 2, f"{exchange}.load.a": 1, f"{exchange}.load.b": 1}:
            return
        assert time.monotonic() < deadline, f"consumers: {found}"


async def test_killed_broker(exchange: str) -> None:
    """SIGKILL and restart: back within a second of the first handshake that is possible."""
    with running() as rabbit:
        async with loaded(rabbit.url, exchange) as load:
            rabbit.kill()
            await asyncio.to_thread(rabbit.start)
            began = time.monotonic()
            await load.progress(1)
            assert time.monotonic() - began < 5
            await one_consumer_each(rabbit, exchange)
        assert "ConnectionLost" in load.ledger.errors()


async def test_closed_connections(rabbit: Rabbit, exchange: str) -> None:
    """An operator closes all connections, three times."""
    async with loaded(rabbit.url, exchange) as load:
        for _ in range(3):
            await rabbit.ctl("close_all_connections", "maintenance")
            await load.progress()
        await one_consumer_each(rabbit, exchange)


async def test_memory_alarm(rabbit: Rabbit, exchange: str) -> None:
    """Blocked by an alarm: calls end by their deadline, and go on when it is over, on the same connections."""
    async with loaded(rabbit.url, exchange) as load:
        await rabbit.alarm(True)
        try:
            async with asyncio.timeout(30):
                while not load.ledger.failed:
                    await asyncio.sleep(0.01)
        finally:
            await rabbit.alarm(False)
        await load.progress()
        await one_consumer_each(rabbit, exchange)


async def test_deleted_queues_and_exchanges(rabbit: Rabbit, exchange: str) -> None:
    """Queues and exchanges deleted under consumers and publishers come back, with one consumer each."""
    async with loaded(rabbit.url, exchange) as load:
        for queue in ("load", "load.a", "load"):
            await rabbit.ctl("delete_queue", f"{exchange}.{queue}")
            await load.progress()
        await rabbit.ctl(
            "eval", f'rabbit_exchange:delete({{resource,<<"/">>,exchange,<<"{exchange}">>}}, false, <<"test">>).'
        )
        await load.progress()
        await one_consumer_each(rabbit, exchange)


async def test_cut_and_refused(rabbit: Rabbit, exchange: str) -> None:
    """The client's way to the broker is cut, then closed for a while, then open again."""
    async with Proxy("127.0.0.1", rabbit.ports[0]) as proxy:
        through = TransportURL.parse(rabbit.url).with_hosts(Host("127.0.0.1", proxy.port)).reveal()
        async with loaded(rabbit.url, exchange, through) as load:
            for _ in range(3):
                proxy.cut()
                await load.progress()
            await proxy.refuse()
            proxy.cut()
            async with asyncio.timeout(30):
                while not any(isinstance(error, rpclib.Unreachable) for error in load.ledger.failed.values()):
                    await asyncio.sleep(0.01)
            await proxy.listen()
            await load.progress()


async def test_half_open_connection(rabbit: Rabbit, exchange: str) -> None:
    """The way to the broker goes silent without a FIN: noticed in seconds, and replaced by another way."""
    async with Proxy("127.0.0.1", rabbit.ports[0]) as proxy:
        parsed = TransportURL.parse(rabbit.url)
        through = parsed.with_hosts(Host("127.0.0.1", proxy.port), *parsed.hosts).reveal()
        async with loaded(rabbit.url, exchange, through) as load:
            proxy.stall()
            began = time.monotonic()
            await load.progress(1)
            assert time.monotonic() - began < 15
            assert proxy.accepted


async def test_suspended_broker(exchange: str) -> None:
    """The broker hangs for a while: no call outlives its deadline, and everything works afterwards."""
    with running() as rabbit:
        async with loaded(rabbit.url, exchange) as load:
            with rabbit.suspended():
                async with asyncio.timeout(30):
                    while not load.ledger.failed:
                        await asyncio.sleep(0.01)
            await load.progress(within=30)
            await one_consumer_each(rabbit, exchange)


@pytest.mark.timeout(240)
async def test_connected_node_of_a_cluster_is_killed(exchange: str) -> None:
    """Three nodes; the one everybody is connected to is killed under load.

    The virtual host has quorum queues by default, which is how an operator asks for queues that outlive a node;
    rpclib declares the same as ever.
    """
    with running(nodes=3) as rabbit:
        await rabbit.ctl("add_vhost", "replicated", "--default-queue-type", "quorum")
        await rabbit.ctl("set_permissions", "-p", "replicated", USER, ".*", ".*", ".*")
        async with loaded(rabbit.url + "replicated", exchange) as load:
            rabbit.kill(0, signal.SIGKILL)
            await load.progress(within=60)
        assert "ConnectionLost" in load.ledger.errors()
