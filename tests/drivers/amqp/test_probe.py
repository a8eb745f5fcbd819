"""The first message to an address: what the broker refuses in silence comes back, and the next finds its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rpclib.testing.waiting import tap, until
from rpclib_amqp.publisher import ALL_TOGETHER, FRESH, HELD_BYTES_AT_MOST, MAX_PROBES, SPARE_PROBES
from tests.drivers.amqp.session import everyone, one, session
from tests.support.rabbit import Rabbit, running


@asynccontextmanager
async def refusing(rabbit: Rabbit, queue: str) -> AsyncIterator[None]:
    """The queue takes no messages; the broker says so to nobody but a channel in confirm mode."""
    definition = '{"max-length": 0, "overflow": "reject-publish"}'
    await rabbit.ctl("set_policy", "refuse", f"^{queue}$".replace(".", "\\."), definition, "--apply-to", "queues")
    yield
    await rabbit.ctl("clear_policy", "refuse")


async def test_refused_message_comes_back(rabbit: Rabbit, exchange: str) -> None:
    """As undeliverable, so that it is sent again; what is sent after the queue takes messages again arrives."""
    async with session(rabbit.url) as (server, _), session(rabbit.url) as (driver, events):
        await (await tap(server, one(exchange), prefetch=10)).close()
        other = await tap(server, one(exchange, "other"), prefetch=10)
        route = driver.route(one(exchange))
        async with refusing(rabbit, f"{exchange}.compute"):
            for body in (b"1", b"2"):
                driver.send(route, body, 60.0)
            driver.send(driver.route(one(exchange, "other")), b"other", 60.0)
            assert [item.body for item in await other.receive()] == [b"other"]
            await until(lambda: len(events.returned) == 2, "both")
            assert [body for body, _ in events.returned] == [b"1", b"2"]
            assert all("takes no messages" in reason for _, reason in events.returned)
        for body in (b"3", b"4"):
            driver.send(route, body, 60.0)
        subscription = await tap(server, one(exchange), prefetch=10)
        assert [item.body for item in await subscription.receive(2)] == [b"3", b"4"]
        assert len(events.returned) == 2


async def test_order_from_the_first_message_on(amqp_url: str, exchange: str) -> None:
    """One by one, in bursts, before and after the first has arrived."""
    async with session(amqp_url) as (server, _), session(amqp_url) as (driver, _):
        subscription = await tap(server, one(exchange), prefetch=0)
        route = driver.route(one(exchange))
        for number in range(300):
            driver.send(route, b"%d" % number, None)
            if number % 7 == 0:
                await asyncio.sleep(0)
        assert [int(item.body) for item in await subscription.receive(300)] == list(range(300))
        assert route.open


async def test_seldom_used_address_stays_with_probes(amqp_url: str, exchange: str) -> None:
    """Until two messages follow each other soon."""
    async with session(amqp_url) as (server, _), session(amqp_url) as (driver, _):
        subscription = await tap(server, one(exchange), prefetch=0)
        route = driver.route(one(exchange))
        for _ in range(2):
            driver.send(route, b"seldom", None)
            await subscription.receive()
            await until(lambda: route.probing is None, "the probe: the message may be faster")
            assert not route.open
            await until(lambda: route.last_arrival + FRESH < asyncio.get_running_loop().time(), "staleness")
        driver.send(route, b"often", None)
        await subscription.receive()
        await until(lambda: route.probing is None, "the probe")
        driver.send(route, b"often", None)
        assert route.open
        await subscription.receive()


async def test_many_addresses_in_turn_leave_the_probes(amqp_url: str, exchange: str) -> None:
    """A client that goes round many servers sends to each seldom, and must not confirm each message for ever."""
    async with session(amqp_url) as (server, _), session(amqp_url) as (driver, _):
        routes = [driver.route(everyone(exchange, f"t{number}")) for number in range(200)]
        taps = [await tap(server, everyone(exchange, f"t{number}"), prefetch=0) for number in range(200)]
        for _ in range(10):
            for route in routes:
                driver.send(route, b"round", None)
            for subscription in taps:
                await subscription.receive()
            if all(route.open for route in routes):
                return
        raise AssertionError("still with the probes")


async def test_probe_that_ended_meanwhile_is_replaced(amqp_url: str, exchange: str) -> None:
    async with session(amqp_url) as (server, _), session(amqp_url) as (driver, _):
        subscription = await tap(server, one(exchange), prefetch=0)
        other = await tap(server, one(exchange, "other"), prefetch=0)
        driver.send(driver.route(one(exchange)), b"1", None)
        await subscription.receive()
        await until(lambda: driver._publisher._spare, "the probe's return")
        [probe] = driver._publisher._spare
        await probe._channel.shut()
        driver.send(driver.route(one(exchange, "other")), b"2", None)
        assert [item.body for item in await other.receive()] == [b"2"]


async def test_more_addresses_than_probes(amqp_url: str, exchange: str) -> None:
    """In one turn: each gets its first message, and few channels stay behind."""
    async with session(amqp_url) as (server, _), session(amqp_url) as (driver, events):
        subscription = await tap(server, one(exchange), prefetch=0)
        everyones = await tap(server, everyone(exchange), prefetch=0)
        for number in range(MAX_PROBES + 50):
            driver.send(driver.route(one(exchange, server=f"s{number}")), b"%d" % number, None)
        driver.send(driver.route(one(exchange)), b"there", None)
        driver.send(driver.route(everyone(exchange)), b"all", None)
        assert [item.body for item in await subscription.receive()] == [b"there"]
        assert [item.body for item in await everyones.receive()] == [b"all"]
        await until(lambda: len(events.returned) == MAX_PROBES + 50, "the others")
        await until(lambda: len(driver._publishing._channels) <= 1 + SPARE_PROBES, "the probes' end")
        assert not events.losses


async def test_close_sends_what_is_held(amqp_url: str, exchange: str) -> None:
    async with session(amqp_url) as (server, _):
        subscription = await tap(server, one(exchange), prefetch=0)
        async with session(amqp_url) as (driver, _):
            for number in range(5):
                driver.send(driver.route(one(exchange)), b"%d" % number, None)
        assert [int(item.body) for item in await subscription.receive(5)] == list(range(5))


async def test_what_is_held_is_bounded_and_may_expire(rabbit: Rabbit, exchange: str) -> None:
    """The broker does not answer the first message: too many more are back-pressure; the expired are dropped."""
    async with session(rabbit.url) as (server, _), session(rabbit.url) as (driver, _):
        subscription = await tap(server, one(exchange), prefetch=0)
        route = driver.route(one(exchange))
        await rabbit.alarm(True)
        try:
            driver.send(route, b"first", None)
            driver.send(route, b"expired", 0.01)
            await until(lambda: driver.gate.shut, "the alarm")
            assert not route.gate.shut
            driver.send(route, b"x" * HELD_BYTES_AT_MOST, None)
            assert route.gate.shut
        finally:
            await rabbit.alarm(False)
        async with asyncio.timeout(10):
            await driver.gate.room()
            await route.gate.room()
        bodies = [item.body for item in await subscription.receive(2)]
        assert [body[:5] for body in bodies] == [b"first", b"xxxxx"]


async def test_much_held_for_many_addresses_shuts_the_gate_of_the_session(rabbit: Rabbit, exchange: str) -> None:
    async with session(rabbit.url) as (server, _), session(rabbit.url) as (driver, _):
        taps = [await tap(server, one(exchange, f"t{number}"), prefetch=0) for number in range(ALL_TOGETHER + 1)]
        routes = [driver.route(one(exchange, f"t{number}")) for number in range(ALL_TOGETHER + 1)]
        await rabbit.alarm(True)
        try:
            for route in routes:
                driver.send(route, b"first", None)
            await until(lambda: driver.gate.shut, "the alarm")
            for number, route in enumerate(routes):
                await until(lambda: not route.held, "the departure of the probe")  # noqa: B023
                assert driver._publisher not in driver._pressures
                driver.send(route, b"x" * (HELD_BYTES_AT_MOST - number), None)
                assert route.gate.shut == (number == 0)
            assert driver._publisher in driver._pressures
        finally:
            await rabbit.alarm(False)
        for each in taps:
            assert len((await each.receive(2))[1].body) > HELD_BYTES_AT_MOST // 2
        await until(lambda: not driver.gate.shut, "room again")


@pytest.mark.timeout(240)  # it starts a cluster of three
async def test_leader_of_a_replicated_queue_is_killed(exchange: str) -> None:
    """Its node dies, not ours. A session that meets the queue before another leader is elected reaches it soon
    after the election; so does one that seldom uses it, and one that is in the middle of it."""
    with running(nodes=3) as rabbit:
        await rabbit.ctl("add_vhost", "replicated", "--default-queue-type", "quorum")
        await rabbit.ctl("set_permissions", "--vhost", "replicated", "rpclib", ".*", ".*", ".*")
        start = rabbit.url.split("@")[0]
        doomed, url = (f"{start}@127.0.0.1:{port}/replicated" for port in rabbit.ports[:2])
        async with session(doomed) as (leader, _):
            await (await tap(leader, one(exchange), prefetch=10)).close()
            async with session(url) as (new, _), session(url) as (seldom, _), session(url) as (busy, _):
                subscription = await tap(new, one(exchange), prefetch=10)
                for driver, count in ((seldom, 1), (busy, 2)):
                    for _ in range(count):
                        driver.send(driver.route(one(exchange)), b"before", None)
                    await subscription.receive(count)
                route = seldom.route(one(exchange))
                await until(lambda: route.last_arrival + FRESH < asyncio.get_running_loop().time(), "staleness")
                assert (route.open, busy.route(one(exchange)).open) == (False, True)
                await asyncio.to_thread(rabbit.kill)
                missing = {b"new": new, b"seldom": seldom, b"busy": busy}
                async with asyncio.timeout(10):
                    while missing:
                        for name, driver in missing.items():
                            driver.send(driver.route(one(exchange)), name, None)
                        await asyncio.sleep(0.02)
                        for item in subscription.take(100):
                            missing.pop(item.body, None)
