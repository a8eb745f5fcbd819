"""What brokers, operators and networks do to a session, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from rpclib.errors import ConnectionLost, TransportError
from rpclib.testing.waiting import tap, until
from rpclib_amqp.connection import FLUSH_AT
from rpclib_amqp.window import AHEAD_AT_MOST
from tests.drivers.amqp.session import connect, consumers, ended, inbox, one, ours, session, waiting
from tests.support.rabbit import Rabbit, running


@pytest.fixture(scope="module")
def mortal() -> Iterator[Rabbit]:
    """A node to kill."""
    with running() as started:
        yield started


async def test_connections_closed_by_an_operator(rabbit: Rabbit, exchange: str) -> None:
    """Both ends of the session go, and what nobody took is delivered to the next session."""
    driver, events = await connect(rabbit.url)
    subscription = await tap(driver, one(exchange), prefetch=10)
    driver.send(driver.route(one(exchange)), b"untaken", None)
    await waiting(subscription)
    await rabbit.ctl("close_all_connections", "maintenance tonight")
    await ended(driver, events, "maintenance tonight", "127.0.0.1")
    assert subscription.take(10) == []
    assert isinstance(events.losses[0], ConnectionLost)
    assert events.losses[0].maybe_executed
    async with session(rabbit.url) as (driver, _):
        again = await (await tap(driver, one(exchange), prefetch=10)).receive()
        assert [(item.body, item.redelivered) for item in again] == [(b"untaken", True)]


async def test_replies_that_came_with_the_end_are_told(amqp_url: str, exchange: str) -> None:
    """Nobody else will get them: they can be taken before the loss is reported, and not after it."""
    driver, events = await connect(amqp_url)
    got: list[bytes] = []

    def arrived() -> None:
        assert not events.losses
        got.extend(item.body for item in replies.take(1))

    replies = await driver.subscribe(inbox(exchange), prefetch=0, arrived=arrived)
    read = driver._consuming._on_data_available

    def read_and_end(data: bytes) -> None:
        read(data)
        driver._ending.lose(ConnectionLost("the end"))

    driver._consuming._on_data_available = read_and_end  # type: ignore[method-assign, assignment]
    for body in (b"1", b"2"):
        driver.send(driver.route(replies.address), body, None)
    await ended(driver, events, "the end")
    assert got == [b"1"]
    assert replies.take(10) == []


async def test_killed_broker(mortal: Rabbit, exchange: str) -> None:
    """SIGKILL is noticed at once; the restarted node has the server's queue and takes sessions again."""
    driver, events = await connect(mortal.url)
    await tap(driver, one(exchange), prefetch=10)
    await asyncio.to_thread(mortal.kill)
    await ended(driver, events, "lost")
    await asyncio.to_thread(mortal.start)
    async with session(mortal.url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=10)
        driver.send(driver.route(one(exchange)), b"alive", None)
        assert [item.body for item in await subscription.receive()] == [b"alive"]
        assert await consumers(mortal, f"{exchange}.compute") == 1


async def test_stopped_broker(mortal: Rabbit, exchange: str) -> None:
    """An orderly stop says why."""
    driver, events = await connect(mortal.url)
    await tap(driver, one(exchange), prefetch=10)
    stopping = asyncio.create_task(asyncio.to_thread(mortal.stop))
    await ended(driver, events, "CONNECTION_FORCED", within=15)
    await stopping
    await asyncio.to_thread(mortal.start)


@pytest.mark.slow
async def test_hanging_broker_is_noticed_by_heartbeats(mortal: Rabbit, exchange: str) -> None:
    """Without anyone else's help, after one to two heartbeats and pika's 5 seconds."""
    driver, events = await connect(mortal.url, heartbeat=1)
    await tap(driver, one(exchange), prefetch=10)
    with mortal.suspended():
        await ended(driver, events, "eartbeat", within=15)


async def test_closed_channel_is_replaced(rabbit: Rabbit, exchange: str) -> None:
    """The broker closes a consumer's channel: the session goes on, and old acknowledgements are forgotten."""
    async with session(rabbit.url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=10)
        route = driver.route(one(exchange))
        for number in range(4):
            driver.send(route, b"%d" % number, None)
        taken = await subscription.receive(2)
        driver._consumers.settle()  # now, and not a little later
        await waiting(subscription, 2)
        old = driver._consumers._channel
        assert old is not None
        old.basic_ack(99)  # unknown to the broker, which closes the channel
        assert [item.body for item in subscription.take(1)] == [b"2"]
        await until(lambda: driver._consumers._channel is not old, "a new channel")
        rest = await subscription.receive(2)
        assert [item.body for item in taken] == [b"0", b"1"]
        assert [(item.body, item.redelivered) for item in rest] == [(b"2", True), (b"3", True)]
        assert await consumers(rabbit, f"{exchange}.compute") == 1
        assert not events.losses


async def test_alarm_is_back_pressure(rabbit: Rabbit, exchange: str) -> None:
    """While the broker takes nothing: a shut gate, bounded memory, and receiving and asking go on. Then all of it
    arrives."""
    async with session(rabbit.url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=0)
        route = driver.route(one(exchange))
        driver.send(route, b"before", None)
        await subscription.receive()
        await rabbit.alarm(True)
        try:
            driver.send(route, b"0", None)
            await until(lambda: events.blocks, "the broker's notice")
            assert driver.gate.shut
            for number in range(1, 100):
                driver.send(route, b"%d" % number, None)
            draining = asyncio.create_task(driver.gate.room())
            assert await driver.subscribers(one(exchange)) == 1
            other = await tap(driver, one(exchange, "other"), prefetch=1)
            await other.close()
            assert not draining.done()
        finally:
            await rabbit.alarm(False)
        async with asyncio.timeout(10):
            await draining
        assert not driver.gate.shut
        assert [item.body for item in await subscription.receive(100)] == [b"%d" % n for n in range(100)]
        assert events.blocks == ["low on memory", None]


async def test_close_under_an_alarm_is_bounded(rabbit: Rabbit, exchange: str) -> None:
    """The broker does not read; a close with flush waits a little and ends."""
    async with session(rabbit.url) as (driver, events):
        await tap(driver, one(exchange), prefetch=1)
        await rabbit.alarm(True)
        try:
            driver.send(driver.route(one(exchange)), b"stuck", None)
            await until(lambda: events.blocks, "the broker's notice")
            began = time.monotonic()
            await driver.close()
            assert time.monotonic() - began < 6
        finally:
            await rabbit.alarm(False)


async def test_full_buffer_is_back_pressure(rabbit: Rabbit, exchange: str) -> None:
    """More than the high-water mark while nobody reads: the gate shuts at once, and opens afterwards."""
    async with session(rabbit.url) as (driver, _):
        subscription = await tap(driver, inbox(exchange), prefetch=0)
        route = driver.route(subscription.address)
        sent = 0
        with rabbit.suspended():
            while not driver.gate.shut:
                driver.send(route, b"x" * 100_000, None)
                sent += 1
                assert sent < 1000
        await driver.gate.room()
        assert not driver.gate.shut
        assert len(await subscription.receive(sent)) == sent


async def test_what_the_broker_has_not_read_is_bounded(rabbit: Rabbit, exchange: str) -> None:
    """Whatever kernels would buffer beside: what is sent afterwards is never far behind."""
    async with session(rabbit.url) as (driver, _):
        subscription = await tap(driver, inbox(exchange), prefetch=0)
        route = driver.route(subscription.address)
        sent = 0
        with rabbit.suspended():
            while not driver.gate.shut:
                driver.send(route, b"x" * 200, None)
                sent += 1
        assert 0.5 * AHEAD_AT_MOST < sent * 3 < AHEAD_AT_MOST + 3 * FLUSH_AT / 200
        for _ in range(3):
            await driver.gate.room()
            while not driver.gate.shut:
                driver.send(route, b"x" * 200, None)
                sent += 1
        await driver.gate.room()
        assert len(await subscription.receive(sent)) == sent


async def test_loss_wakes_who_waits_for_room(rabbit: Rabbit, exchange: str) -> None:
    driver, events = await connect(rabbit.url)
    replies = await tap(driver, inbox(exchange), prefetch=0)
    route = driver.route(replies.address)
    with rabbit.suspended():
        while not driver.gate.shut:
            driver.send(route, b"x" * 100_000, None)
        draining = asyncio.create_task(driver.gate.room())
        await asyncio.sleep(0)
        driver.sever()
        with pytest.raises(ConnectionLost):
            await draining
        assert len(events.losses) == 1
    await driver.close()


async def test_no_channel_left(amqp_url: str, exchange: str) -> None:
    """Servers need no more of them; for an inbox a clear error. The session and its subscriptions go on."""
    async with session(amqp_url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=1)
        driver._consuming.params._channel_max = len(driver._consuming._channels)
        await tap(driver, one(exchange, "another"), prefetch=1)
        with pytest.raises(TransportError, match="no more channels"):
            await tap(driver, inbox(exchange), prefetch=0)
        driver.send(driver.route(one(exchange)), b"x", None)
        assert [item.body for item in await subscription.receive()] == [b"x"]
        assert not events.losses


async def test_a_bug_in_a_callback_ends_the_session(
    amqp_url: str, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the loop, not in silence, and not only half of it."""
    driver, events = await connect(amqp_url)
    subscription = await tap(driver, one(exchange), prefetch=1)

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    ours(subscription).notify = broken  # type: ignore[method-assign]
    driver.send(driver.route(one(exchange)), b"x", None)
    await ended(driver, events, "a bug")
    assert any(record.exc_info for record in caplog.records if record.name == "rpclib_amqp")


async def test_normal_operation_logs_no_errors(
    rabbit: Rabbit, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither ours nor pika's: opening, asking for what is not there, being closed by the broker, closing."""
    async with session(rabbit.url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=1)
        assert await driver.subscribers(one(exchange, "nowhere")) == 0
        await subscription.stop()
        await subscription.close()
        await rabbit.ctl("close_all_connections", "test")
        await until(lambda: events.losses, "the loss")
    with pytest.raises(TransportError):
        await connect(rabbit.url + "nope")
    with pytest.raises(TransportError):
        await connect("amqp://127.0.0.1:1")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
