"""Back-pressure: what is slow holds those who send there, and nobody else."""

from __future__ import annotations

import asyncio

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.conformance.harness import Harness
from rpclib.conformance.test_session import session
from rpclib.driver import Driver, Route
from rpclib.testing.waiting import tap

BODY = bytes(1000)
MANY = 20_000
"""Messages; a gate shuts with 10,000 at the latest, where it is the driver that holds them."""


async def moment(driver: Driver) -> None:
    """Wait for the session where it is shut: the backend may need a moment, but no subscriber's help."""
    if driver.gate.shut:
        async with asyncio.timeout(10):
            await driver.gate.room()


async def fill(driver: Driver, address: Address) -> Route:
    """Send to an address until its gate shuts, or the backend has taken a great many."""
    route = driver.route(address)
    for _ in range(MANY):
        await moment(driver)
        if route.gate.shut:
            break
        driver.send(route, BODY, None)
    return route


async def holds_nobody_else(driver: Driver, receiver: Driver, full: Address, other: Address) -> None:
    """Fill the one address, which nobody takes from, and send as fast as possible to the other."""
    await tap(receiver, full, prefetch=1)
    reader = await tap(receiver, other, prefetch=0)
    await fill(driver, full)
    route = driver.route(reader.address)
    for number in range(1000):
        await moment(driver)
        assert not route.gate.shut
        driver.send(route, b"%d" % number, None)
    assert [int(item.body) for item in await reader.receive(1000)] == list(range(1000))


async def test_full_address_holds_nobody_else(harness: Harness) -> None:
    """While an address nobody takes from is full, a thousand messages to another one pass at full rate."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        await holds_nobody_else(two, one, harness.one("full"), harness.one("other"))


async def test_slow_caller_holds_no_other(harness: Harness) -> None:
    """While the inbox of one process is full, a thousand answers to another one pass at full rate."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        slow = await tap(one, Address(Kind.INBOX, harness.exchange), prefetch=0)
        reader = await tap(one, Address(Kind.INBOX, harness.exchange), prefetch=0)
        await fill(two, slow.address)
        route = two.route(reader.address)
        for number in range(1000):
            await moment(two)
            assert not route.gate.shut
            two.send(route, b"%d" % number, None)
        assert [int(item.body) for item in await reader.receive(1000)] == list(range(1000))


async def test_shut_gate_takes_what_must_go(harness: Harness) -> None:
    """What is sent at a shut gate is neither refused nor lost."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        reader = await tap(one, harness.one("t"), prefetch=100)
        route, sent = two.route(harness.one("t")), 0
        while sent < MANY and not (route.gate.shut or two.gate.shut):
            two.send(route, b"%d" % sent, None)
            sent += 1
        for _ in range(10):
            two.send(route, b"%d" % sent, None)
            sent += 1
        assert [int(item.body) for item in await reader.receive(sent)] == list(range(sent))
        async with asyncio.timeout(10):
            await asyncio.gather(two.gate.room(), route.gate.room())


async def test_loss_ends_the_wait_for_room(harness: Harness) -> None:
    """Everybody who waits for room, or comes later, gets a ConnectionLost of his own; a wait can be cancelled."""
    async with session(harness) as (one, _):
        driver, events = await harness.session()
        await tap(one, harness.one("t"), prefetch=1)
        route = await fill(driver, harness.one("t"))
        waiting = [asyncio.create_task(route.gate.room()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        driver.sever()
        await harness.until(lambda: events.losses, "the loss")
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        lost = [error for error in ended[1:] if error is not None]  # where the gate had stayed open
        for gate in (driver.gate, route.gate):
            assert not gate.shut
            with pytest.raises(rpclib.ConnectionLost) as caught:
                await gate.room()
            lost.append(caught.value)
        assert all(type(error) is rpclib.ConnectionLost for error in lost)
        assert len({id(error) for error in lost}) == len(lost)
        await driver.close()
