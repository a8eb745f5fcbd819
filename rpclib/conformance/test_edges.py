"""The edges of the interface: dead sessions, keys that came over the wire, who is gone, how old a message is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.conformance.harness import Harness
from rpclib.conformance.plugin import needs
from rpclib.conformance.test_session import session
from rpclib.driver import Capability
from rpclib.testing.waiting import tap


def frames(traceback: TracebackType | None) -> int:
    count = 0
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count


@pytest.mark.parametrize("how", ["close", "sever"])
async def test_dead_session_raises_new_errors(harness: Harness, how: str) -> None:
    """A dead session raises ConnectionLost, each time another one; what ends a subscription returns."""
    driver, events = await harness.session()
    subscription = (await tap(driver, harness.one("t"), prefetch=1)).subscription
    route = driver.route(harness.one("t"))
    if how == "sever":
        driver.sever()
        await harness.until(lambda: events.losses, "the loss")
    else:
        await driver.close()

    async def send() -> None:
        driver.send(route, b"late", None)

    async def subscribe() -> None:
        await driver.subscribe(harness.one("t"), prefetch=1, arrived=lambda: None)

    async def count() -> None:
        await driver.subscribers(harness.one("t"))

    asks: list[Callable[[], Awaitable[None]]] = [send, subscribe, driver.gate.room]
    if Capability.PRESENCE in driver.capabilities:
        asks.append(count)
    for ask in asks:
        errors = []
        for _ in range(3):
            with pytest.raises(rpclib.ConnectionLost) as caught:
                await ask()
            assert not caught.value.maybe_executed, "nothing was sent"
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 3
        assert len({frames(error.__traceback__) for error in errors}) == 1
    driver.route(harness.one("other"))
    await subscription.stop()
    await subscription.close()
    assert (subscription.take(10), subscription.waiting) == ([], 0)
    await driver.close()


async def test_nothing_is_told_after_close(harness: Harness) -> None:
    """Neither an arrival nor any event, from the moment on when `close` is called."""
    async with session(harness) as (one, _):
        driver, events = await harness.session()
        arrivals: list[int] = []
        address = harness.one("t")
        await driver.subscribe(address, prefetch=10, arrived=lambda: arrivals.append(1))
        reader = await tap(one, harness.one("flushed"), prefetch=10)
        driver.send(driver.route(address), b"to itself", 10)
        driver.send(driver.route(harness.one("nobody")), b"lost", 10)
        driver.send(driver.route(reader.address), b"last", 10)
        await driver.close()
        assert [item.body for item in await reader.receive()] == [b"last"]
        assert (arrivals, events.told) == ([], 0)


async def test_nothing_is_told_after_stop(harness: Harness) -> None:
    """A subscription that was stopped tells of no arrival, and gets none."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        arrivals: list[int] = []
        stopped = await one.subscribe(harness.all("t"), prefetch=10, arrived=lambda: arrivals.append(1))
        await stopped.stop()
        told = len(arrivals)
        reader = await tap(one, harness.all("t"), prefetch=10)
        two.send(two.route(harness.all("t")), b"late", 10)
        assert [item.body for item in await reader.receive()] == [b"late"]
        assert (stopped.take(10), len(arrivals)) == ([], told)
        await stopped.stop()
        await stopped.close()


async def test_inbox_keys_have_their_form(harness: Harness) -> None:
    """Keys of inboxes match the driver's `inbox_keys`, are ASCII and short, and never come again."""
    keys = []
    for _ in range(2):
        async with session(harness) as (driver, _):
            taps = [await tap(driver, Address(Kind.INBOX, harness.exchange), prefetch=0) for _ in range(5)]
            keys += [each.address.key for each in taps]
    assert len(set(keys)) == 10
    for key in keys:
        assert harness.driver.inbox_keys.fullmatch(key), key
        assert key.isascii()
        assert 0 < len(key) <= 255


def odd_keys(harness: Harness, real: str) -> list[str]:
    """Keys that a stranger may put into an envelope. The last ones are names of services with some driver."""
    name = harness.exchange
    odd = [
        " ",
        "a b",
        "\0",
        f"{real}\0",
        f"{real} ",
        f"{real}\n",
        "*",
        "#",
        ">",
        "?",
        "%s",
        "~",
        "x" * 255,
        ".",
        "..",
    ]
    odd += [f"../{real}", f"{real}/../one", "/etc/hostname", "amq.rabbitmq.reply-to", "amq.rabbitmq.reply-to.a.b"]
    services = [f"one{mark}{name}{mark}t" for mark in ("/", ".", ",", ":", "~~")]
    services += [f"{name}{mark}t" for mark in ("/", ".", ",", ":", "~~")]
    return odd + services + [f"O{name}/t/", f"{real}/../one,{name},t,", f"{name}.t.fanout"]


async def test_odd_inbox_keys_reach_nobody(harness: Harness) -> None:
    """Spaces, controls, patterns, paths, names of services: sent to as inbox keys, they raise nothing, reach no
    other address and lose no session."""
    async with session(harness) as (one, _), session(harness) as (two, events):
        inbox = await tap(one, Address(Kind.INBOX, harness.exchange), prefetch=0)
        others = [await tap(one, address, prefetch=0) for address in (harness.one("t"), harness.all("t"))]
        keys = odd_keys(harness, inbox.address.key)
        for key in keys:
            for must_arrive in (False, True):
                two.send(two.route(Address.inbox(key), must_arrive=must_arrive), b"odd", 10, b"t" * 16)
        if Capability.PEER_GONE in two.capabilities:
            await harness.until(lambda: len(events.returned) >= len(keys), f"the return of {len(keys)}")
        for reader in (inbox, *others):
            two.send(two.route(reader.address), b"meant", 10)
            assert [item.body for item in await reader.receive()] == [b"meant"]
            assert reader.take(10) == []
        assert not events.losses


@needs(Capability.PEER_GONE)
async def test_gone_inbox_is_reported(harness: Harness) -> None:
    """A message that must arrive at an inbox is reported when nobody owns the inbox any more. It arrives while
    somebody does."""
    async with session(harness) as (one, _), session(harness) as (two, events):
        closed = await tap(one, Address(Kind.INBOX, harness.exchange), prefetch=0)
        severed, _ = await harness.session()
        lost = await tap(severed, Address(Kind.INBOX, harness.exchange), prefetch=0)
        for inbox in (closed, lost):
            two.send(two.route(inbox.address, must_arrive=True), b"there", None)
            assert [item.body for item in await inbox.receive()] == [b"there"]
        assert events.returned == []
        await closed.close()
        severed.sever()
        for inbox, body in ((closed, b"closed"), (lost, b"lost")):
            route = two.route(inbox.address, must_arrive=True)

            def returned(route: object = route, body: bytes = body) -> bool:
                two.send(route, body, 10, b"t" * 16)  # type: ignore[arg-type]  # once the backend has noticed
                return body in events.returned

            await harness.until(returned, f"the return of {body.decode()}", 2)
        await severed.close()


@needs(Capability.UNROUTABLE)
async def test_must_arrive_is_for_inboxes(harness: Harness) -> None:
    """``must_arrive`` changes nothing for other addresses: a ONE address that nobody serves is reported, an ALL
    address is not."""
    async with session(harness) as (one, _), session(harness) as (two, events):
        reader = await tap(one, harness.one("t"), prefetch=10)
        two.send(two.route(harness.all("nobody"), must_arrive=True), b"all", 10)
        two.send(two.route(harness.one("nobody"), must_arrive=True), b"one", 10)
        two.send(two.route(reader.address, must_arrive=True), b"there", 10)
        await harness.until(lambda: events.returned, "the report")
        assert [item.body for item in await reader.receive()] == [b"there"]
        assert events.returned == [b"one"]


@needs(Capability.AGES)
async def test_waiting_counts(harness: Harness) -> None:
    """A message that waits 0.3 s for a busy subscriber says that it waited so long, and hardly longer."""
    async with session(harness) as (one, _), session(harness) as (two, _):
        busy = await tap(one, harness.one("t"), prefetch=1)
        sent = harness.now()
        for body in (b"first", b"second", b"third"):
            two.send(two.route(harness.one("t")), body, 30)
        await harness.until(lambda: harness.now() - sent > 0.3, "0.3 s to pass")
        for delivery in await busy.receive(3):
            assert 0.29 <= delivery.waited <= harness.now() - sent + 0.01
