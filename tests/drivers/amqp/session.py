"""Sessions with a broker, opened through the driver interface alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rpclib.address import Address, Kind
from rpclib.errors import ConnectionLost, TransportError
from rpclib.testing.waiting import Tap, until
from rpclib.url import TransportURL
from rpclib_amqp import AmqpDriver, AmqpOptions
from rpclib_amqp.subscription import AmqpSubscription
from tests.support.rabbit import Rabbit

SECONDS = 10.0


class Recorder:
    """The events of a session. Wait for one with `until`."""

    def __init__(self) -> None:
        self.returned: list[tuple[bytes, str]] = []
        self.refusals: list[tuple[bytes, TransportError]] = []
        self.blocks: list[str | None] = []
        self.losses: list[TransportError] = []

    def undeliverable(self, body: bytes, reason: str) -> None:
        self.returned.append((body, reason))

    def refused(self, body: bytes, error: TransportError) -> None:
        self.refusals.append((body, error))

    def worker_lost(self, tag: bytes) -> None:
        raise AssertionError("the driver does not declare PEER_LOSS")

    def blocked(self, reason: str | None) -> None:
        self.blocks.append(reason)

    def lost(self, error: TransportError) -> None:
        self.losses.append(error)


async def connect(url: str, **options: Any) -> tuple[AmqpDriver, Recorder]:
    """One session with the first host of ``url``."""
    events, parsed = Recorder(), TransportURL.parse(url)
    return await AmqpDriver.open(parsed.with_hosts(*parsed.hosts[:1]), AmqpOptions(**options), events), events


@asynccontextmanager
async def session(url: str, **options: Any) -> AsyncIterator[tuple[AmqpDriver, Recorder]]:
    driver, events = await connect(url, **options)
    try:
        yield driver, events
    finally:
        await driver.close()


async def ended(driver: AmqpDriver, events: Recorder, *words: str, within: float = 5.0) -> None:
    """The session reports its end once, with ``words``, and is dead in every respect."""
    await until(lambda: events.losses, "the loss", within)
    [error] = events.losses
    assert all(word in str(error) for word in words), error
    with pytest.raises(ConnectionLost) as caught:
        driver.send(driver.route(one("x")), b"late", None)
    assert not caught.value.maybe_executed
    for refused in (
        driver.subscribe(one("x"), prefetch=1, arrived=lambda: None),
        driver.subscribers(one("x")),
        driver.gate.room(),
    ):
        with pytest.raises(ConnectionLost):
            await refused
    await driver.close()
    assert len(events.losses) == 1


async def connected(rabbit: Rabbit, expected: list[list[Any]], *columns: str) -> None:
    """Return when the broker lists exactly these connections. It lists some a moment after their end, and others a
    moment after their beginning."""
    rows: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                rows = await rabbit.list("connections", *columns)
                if sorted([*row.values()] for row in rows) == expected:
                    return
    except TimeoutError:
        raise AssertionError(f"connections: {rows}") from None


async def consumers(rabbit: Rabbit, queue: str) -> int:
    rows = await rabbit.list("consumers", "queue_name")
    return sum(row["queue_name"] == queue for row in rows)


def ours(tapped: Tap) -> AmqpSubscription:
    """The driver's part of it."""
    assert isinstance(tapped.subscription, AmqpSubscription)
    return tapped.subscription


async def waiting(tapped: Tap, count: int = 1) -> None:
    """Return when ``count`` deliveries wait to be taken."""
    await until(lambda: tapped.subscription.waiting == count, f"{count} deliveries")


def one(exchange: str, topic: str = "compute", server: str = "") -> Address:
    return Address(Kind.ONE, exchange, topic, server)


def everyone(exchange: str, topic: str = "compute") -> Address:
    return Address(Kind.ALL, exchange, topic)


def inbox(exchange: str) -> Address:
    return Address(Kind.INBOX, exchange)
