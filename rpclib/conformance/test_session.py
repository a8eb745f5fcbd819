"""The driver interface itself: one session, bytes in, bytes out. Start here when writing a driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.conformance.harness import Harness
from rpclib.conformance.plugin import needs
from rpclib.driver import Capability, Driver
from rpclib.testing.waiting import Recorder, tap


@asynccontextmanager
async def session(harness: Harness) -> AsyncIterator[tuple[Driver, Recorder]]:
    driver, events = await harness.session()
    try:
        yield driver, events
    finally:
        await driver.close()


async def test_subscribe_is_in_effect_on_return(harness: Harness) -> None:
    """A message sent right after `subscribe` returned arrives, for every kind of address."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        inbox = Address(Kind.INBOX, harness.exchange)
        for asked in (harness.one("t"), harness.one("t", "s"), harness.all("t"), inbox):
            subscription = await tap(one, asked, prefetch=10)
            two.send(two.route(subscription.address), b"now", 10)
            assert [item.body for item in await subscription.receive()] == [b"now"]
            await subscription.close()


async def test_inboxes_are_private(harness: Harness) -> None:
    """Every inbox gets a key of its own and receives only what is sent to it."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        inboxes = [
            await tap(driver, Address(Kind.INBOX, harness.exchange), prefetch=0) for driver in (one, one, two)
        ]
        assert len({inbox.address.key for inbox in inboxes}) == 3
        for number, inbox in enumerate(inboxes):
            two.send(two.route(Address.inbox(inbox.address.key)), b"%d" % number, None)
        assert [(await inbox.receive())[0].body for inbox in inboxes] == [b"0", b"1", b"2"]


async def test_bodies_arrive_as_sent(harness: Harness) -> None:
    """Bodies are opaque: empty, all byte values, a mebibyte."""
    bodies = [b"", bytes(range(256)) * 16, b"\0" * 100, os.urandom(1 << 20), b"\xce" * 131_072, b"end"]
    async with session(harness) as (one, _), session(harness) as (two, _):
        subscription = await tap(one, harness.one("t"), prefetch=100)
        for body in bodies:
            two.send(two.route(harness.one("t")), body, None)
        assert [item.body for item in await subscription.receive(len(bodies))] == bodies


async def test_names_are_exact(harness: Harness) -> None:
    """Names never match by prefix, pattern or case, and a topic is not a server."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        addresses = [
            harness.one("a"),
            harness.one("ab"),
            harness.one("A"),
            harness.one("a", "b"),
            harness.one("a", "b.c"),
        ]
        addresses += [harness.one("a_b-c"), harness.one("a" * 80, "s" * 100), harness.one("a", "@:.x")]
        subscriptions = [await tap(one, address, prefetch=10) for address in addresses]
        for number, address in enumerate(addresses):
            two.send(two.route(address), b"%d" % number, 10)
        for number, subscription in enumerate(subscriptions):
            assert [item.body for item in await subscription.receive()] == [b"%d" % number]
            assert subscription.take(10) == []


async def test_one_goes_to_one_and_all_to_all(harness: Harness) -> None:
    """A ONE message is taken once over all subscribers; an ALL message once by each."""
    async with session(harness) as (one, _), session(harness) as (two, _), session(harness) as (three, _):
        ones = [await tap(driver, harness.one("t"), prefetch=100) for driver in (one, two)]
        alls = [await tap(driver, harness.all("t"), prefetch=100) for driver in (one, two, two)]
        for number in range(20):
            three.send(three.route(harness.one("t")), b"%d" % number, 10)
            three.send(three.route(harness.all("t")), b"%d" % number, 10)
        for subscription in alls:
            assert [item.body for item in await subscription.receive(20)] == [
                b"%d" % number for number in range(20)
            ]
        got: list[bytes] = []

        def taken() -> int:
            got.extend(item.body for subscription in ones for item in subscription.take(100))
            return len(got)

        await harness.until(lambda: taken() >= 20, "20 messages")
        assert sorted(got, key=int) == [b"%d" % number for number in range(20)]


async def test_take_never_waits_and_respects_its_limit(harness: Harness) -> None:
    """`take` hands over at most what was asked for, in order, and an empty list when there is nothing."""
    async with session(harness) as (one, _):
        subscription = await tap(one, harness.one("t"), prefetch=100)
        assert subscription.take(5) == []
        for number in range(10):
            one.send(one.route(harness.one("t")), b"%d" % number, 10)
        got: list[bytes] = []
        while len(got) < 10:
            batch = await subscription.some(3)
            assert len(batch) <= 3
            got += [item.body for item in batch]
        assert got == [b"%d" % number for number in range(10)]


async def test_every_arrival_is_told(harness: Harness) -> None:
    """After `take` found nothing, the next arrival is told, and never from inside a call to the driver."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        subscription = await tap(one, harness.one("t"), prefetch=100)
        for number in range(50):
            sender = (one, two)[number % 2]
            assert subscription.take(100) == []
            subscription.arrived.clear()
            sender.send(sender.route(harness.one("t")), b"%d" % number, 10)
            assert not subscription.arrived.is_set()
            await subscription.arrived.wait()
            assert subscription.subscription.waiting == 1
            assert [item.body for item in subscription.take(100)] == [b"%d" % number]
            assert subscription.subscription.waiting == 0


async def test_prefetch_leaves_work_to_others(harness: Harness) -> None:
    """A subscriber that takes nothing holds about `prefetch` messages; the others get the rest."""
    async with session(harness) as (one, _), session(harness) as (two, _), session(harness) as (three, _):
        await tap(one, harness.one("t"), prefetch=5)
        busy = await tap(two, harness.one("t"), prefetch=5)
        for number in range(100):
            three.send(three.route(harness.one("t")), b"%d" % number, 20)
        assert len(await busy.receive(90)) == 90


@needs(Capability.EXPIRES)
async def test_expired_messages_are_not_delivered(harness: Harness) -> None:
    """A message whose ttl is over is dropped, and does not block those behind it."""
    async with session(harness) as (one, _):
        blocker = await tap(one, harness.one("t"), prefetch=1)
        one.send(one.route(harness.one("t")), b"first", None)
        await blocker.arrived.wait()
        one.send(one.route(harness.one("t")), b"short", 0.05)
        one.send(one.route(harness.one("t")), b"long", 30)
        began = harness.now()
        await harness.until(lambda: harness.now() - began > 0.2, "0.2 s to pass")
        assert [item.body for item in await blocker.receive(2)] == [b"first", b"long"]


@needs(Capability.UNROUTABLE)
async def test_unroutable_is_reported(harness: Harness) -> None:
    """What is sent to a ONE address nobody ever served is reported to `Observer.undeliverable`, after `send`."""
    async with session(harness) as (one, events):
        one.send(one.route(harness.one("nobody")), b"lost", 5, b"t" * 16)
        assert events.returned == []
        await harness.until(lambda: events.returned == [b"lost"], "the report")


@needs(Capability.PRESENCE)
async def test_subscribers_are_counted(harness: Harness) -> None:
    """`subscribers` follows subscriptions as they come and go."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        assert await one.subscribers(harness.one("t")) == 0
        first = await tap(one, harness.one("t"), prefetch=1)
        await tap(two, harness.one("t"), prefetch=1)
        assert await one.subscribers(harness.one("t")) == 2
        await first.close()
        while await one.subscribers(harness.one("t")) != 1:
            await asyncio.sleep(0.01)


@needs(Capability.REDELIVERS)
async def test_untaken_messages_are_redelivered(harness: Harness) -> None:
    """What a lost session had received but not taken reaches another subscriber, marked as redelivered."""
    async with session(harness) as (one, _), session(harness) as (two, _), session(harness) as (three, _):
        held = await tap(one, harness.one("t"), prefetch=10)
        three.send(three.route(harness.one("t")), b"again", 20)
        await held.arrived.wait()
        other = await tap(two, harness.one("t"), prefetch=10)
        one.sever()
        [delivery] = await other.receive()
        assert (delivery.body, delivery.redelivered) == (b"again", True)


async def test_taken_messages_are_settled(harness: Harness) -> None:
    """What was taken is not delivered again, however the session ends."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        subscription = await tap(one, harness.one("t"), prefetch=10)
        two.send(two.route(harness.one("t")), b"once", 20)
        await subscription.receive()
        await one.close()
        other = await tap(two, harness.one("t"), prefetch=10)
        two.send(two.route(harness.one("t")), b"next", 20)
        assert [item.body for item in await other.receive()] == [b"next"]


async def test_stop_keeps_what_arrived(harness: Harness) -> None:
    """After `stop`, what had arrived can be taken; nothing else ever comes."""
    async with session(harness) as (one, _):
        subscription = await tap(one, harness.one("t"), prefetch=100)
        for number in range(20):
            one.send(one.route(harness.one("t")), b"%d" % number, 20)
        await subscription.arrived.wait()
        await subscription.stop()
        got: list[bytes] = []
        while taken := subscription.take(3):
            got += [item.body for item in taken]
        assert got == [b"%d" % number for number in range(len(got))]
        assert got
        await subscription.close()


async def test_close_is_idempotent(harness: Harness) -> None:
    """A closed session has nothing to take and refuses to send; closing it again is no error and no loss."""
    driver, events = await harness.session()
    subscription = await tap(driver, harness.one("t"), prefetch=1)
    driver.send(driver.route(harness.one("t")), b"there", 20)
    await subscription.arrived.wait()
    await driver.close()
    await driver.close()
    assert subscription.take(10) == []
    with pytest.raises(rpclib.ConnectionLost):
        driver.send(driver.route(harness.one("t")), b"late", None)
    assert events.losses == []


async def test_loss_is_reported_once(harness: Harness) -> None:
    """A session that ends by itself says so once, has nothing to take any more, and refuses to send."""
    driver, events = await harness.session()
    subscription = await tap(driver, harness.one("t"), prefetch=1)
    driver.send(driver.route(harness.one("t")), b"there", 20)
    await subscription.arrived.wait()
    driver.sever()
    await harness.until(lambda: events.losses, "the report")
    assert subscription.take(10) == []
    with pytest.raises(rpclib.ConnectionLost):
        driver.send(driver.route(harness.one("t")), b"late", None)
    await driver.close()
    assert len(events.losses) == 1


async def test_close_flushes(harness: Harness) -> None:
    """What `send` took before `close` is delivered."""
    async with session(harness) as (one, _):
        subscription = await tap(one, harness.one("t"), prefetch=0)
        two, _ = await harness.session()
        for number in range(500):
            two.send(two.route(harness.one("t")), b"%d" % number, 20)
        await two.close()
        assert len(await subscription.receive(500)) == 500


async def test_flood_is_bounded(harness: Harness) -> None:
    """A sender that outruns everybody meets a shut gate; `Gate.room` returns, and nothing is lost on the way."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        subscription = await tap(one, harness.one("t"), prefetch=100)
        route, body, sent, taken = two.route(harness.one("t")), b"x" * 1000, 0, 0

        async def consume() -> int:
            count = 0
            while count < 20_000:
                count += len(await subscription.some(1000))
                await asyncio.sleep(0)
            return count

        consumer = asyncio.create_task(consume())
        was_shut = False
        while sent < 20_000:
            for gate in (two.gate, route.gate):
                was_shut = was_shut or gate.shut
                await gate.room()
            two.send(route, body, None)
            sent += 1
        taken = await consumer
        assert was_shut, "20,000 sends in one loop turn never met a bound"
        assert taken == sent
