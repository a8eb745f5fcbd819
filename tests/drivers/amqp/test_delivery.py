"""Sending and receiving on a broker that works."""

from __future__ import annotations

import asyncio
import time

import pytest

from rpclib.errors import ConnectionLost, MessageTooLarge
from rpclib.testing.waiting import tap, until
from tests.drivers.amqp.session import everyone, inbox, one, session, waiting
from tests.support.rabbit import Rabbit


async def test_only_requests_come_back(amqp_url: str, exchange: str) -> None:
    """A request without a queue is returned with its body; a fanout or reply to nobody is dropped in silence."""
    async with session(amqp_url) as (driver, events):
        await tap(driver, one(exchange), prefetch=1)
        gone = await tap(driver, inbox(exchange), prefetch=0)
        await gone.close()
        heard = await tap(driver, everyone(exchange, "other"), prefetch=1)
        await heard.close()
        driver.send(driver.route(gone.address), b"late reply", None)
        driver.send(driver.route(everyone(exchange, "other")), b"to nobody", None)
        driver.send(driver.route(one(exchange, server="never")), b"request", 5.0)
        await until(lambda: events.returned, "the return")
        assert events.returned == [(b"request", "the broker returned it: NO_ROUTE")]


async def test_no_exchange_means_no_server(amqp_url: str, exchange: str) -> None:
    """Before any server ever was: requests come back, the session lives, and works once there is a server."""
    async with session(amqp_url) as (driver, events):
        route = driver.route(one(exchange))
        driver.send(route, b"1", 5.0)
        driver.send(driver.route(everyone(exchange)), b"dropped", 5.0)
        driver.send(route, b"2", 5.0)
        await until(lambda: len(events.returned) == 2, "both")
        assert [body for body, _ in events.returned] == [b"1", b"2"]
        assert exchange in events.returned[0][1]
        subscription = await tap(driver, one(exchange), prefetch=10)
        driver.send(route, b"3", 5.0)
        driver.send(route, b"4", 5.0)
        assert [item.body for item in await subscription.receive(2)] == [b"3", b"4"]


@pytest.mark.parametrize("ttl", [0.0, -1.0, 1e-9, 0.0005])
async def test_tiny_ttl_expires(amqp_url: str, exchange: str, ttl: float) -> None:
    """A message that nobody can take at once is gone."""
    async with session(amqp_url) as (driver, _):
        first = await tap(driver, one(exchange), prefetch=1)
        await first.close()
        driver.send(driver.route(one(exchange)), b"short", ttl)
        driver.send(driver.route(one(exchange)), b"long", 60.0)
        await driver.close()
    async with session(amqp_url) as (driver, _):
        second = await tap(driver, one(exchange), prefetch=10)
        assert [item.body for item in await second.receive()] == [b"long"]


async def test_huge_ttl_is_harmless(amqp_url: str, exchange: str) -> None:
    """The broker closes the channel over a number it does not like."""
    async with session(amqp_url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=10)
        driver.send(driver.route(one(exchange)), b"patient", 1e15)
        assert [item.body for item in await subscription.receive()] == [b"patient"]
        assert not events.losses


async def test_waited_counts_from_arrival(amqp_url: str, exchange: str) -> None:
    """`waited` is the time between arrival and `take`."""
    async with session(amqp_url) as (driver, _):
        subscription = await tap(driver, one(exchange), prefetch=10)
        driver.send(driver.route(one(exchange)), b"x", None)
        await waiting(subscription)
        arrived = time.monotonic()
        await until(lambda: time.monotonic() - arrived > 0.1, "0.1 s to pass")
        [delivery] = subscription.take(1)
        assert 0.1 < delivery.waited < 5


async def test_limits(amqp_url: str, exchange: str) -> None:
    """The longest body passes, one byte more does not; after close nothing does."""
    async with session(amqp_url) as (driver, _):
        subscription = await tap(driver, inbox(exchange), prefetch=0)
        route = driver.route(subscription.address)
        longest = b"\xce" * driver.max_body
        driver.send(route, longest, None)
        assert [item.body for item in await subscription.receive()] == [longest]
        with pytest.raises(MessageTooLarge):
            driver.send(route, longest + b"+", None)
        await driver.close()
        with pytest.raises(ConnectionLost):
            driver.send(route, b"late", None)


async def test_taken_is_acknowledged_and_nothing_else(rabbit: Rabbit, exchange: str) -> None:
    """After each batch the broker holds as unacknowledged exactly what was not taken, whatever the batch sizes."""

    async def held() -> int:
        rows = await rabbit.list("queues", "name", "messages_unacknowledged")
        return next(int(row["messages_unacknowledged"]) for row in rows if row["name"] == f"{exchange}.compute")

    async with session(rabbit.url) as (driver, _), session(rabbit.url) as (other, _):
        subscription = await tap(driver, one(exchange), prefetch=0)
        for number in range(40):
            driver.send(driver.route(one(exchange)), b"%d" % number, None)
        got = [item.body for size in (1, 2, 4, 8) for item in await subscription.receive(size)]
        assert await held() == 25
        assert len(subscription.take(3)) == 3
        assert len(subscription.take(2)) == 2
        assert await held() == 20
        await subscription.close()
        rest = await (await tap(other, one(exchange), prefetch=0)).receive(20)
        assert [item.body for item in rest] == [b"%d" % number for number in range(20, 40)]
        assert all(item.redelivered for item in rest)
        assert got == [b"%d" % number for number in range(15)]


@pytest.mark.parametrize("ending", ["subscription", "session", "unflushed session"])
async def test_take_in_the_turn_of_close_is_settled(amqp_url: str, exchange: str, ending: str) -> None:
    """Acknowledgements gathered in this turn still leave, whether the subscription or the session closes."""
    async with session(amqp_url) as (driver, _):
        subscription = await tap(driver, one(exchange), prefetch=10)
        for body in (b"taken", b"left"):
            driver.send(driver.route(one(exchange)), body, None)
        await waiting(subscription, 2)
        assert [item.body for item in subscription.take(1)] == [b"taken"]
        await (subscription.close() if ending == "subscription" else driver.close(flush=ending == "session"))
    async with session(amqp_url) as (driver, _):
        rest = await (await tap(driver, one(exchange), prefetch=10)).receive()
        assert [(item.body, item.redelivered) for item in rest] == [(b"left", True)]


async def test_stop_under_load_loses_nothing(amqp_url: str, exchange: str) -> None:
    """A consumer that stops in the middle of a stream hands over all it got, and none of it a second time."""
    total = 3000
    async with (
        session(amqp_url) as (one_of_two, _),
        session(amqp_url) as (other, _),
        session(amqp_url) as (sender, _),
    ):
        stopped = await tap(one_of_two, one(exchange), prefetch=300)
        route = sender.route(one(exchange))

        async def send() -> None:
            for number in range(total):
                sender.send(route, b"%d" % number, None)
                if number % 50 == 0:
                    await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        got = await stopped.receive(500)
        await stopped.stop()
        while taken := stopped.take(7):
            got += taken
        assert 500 <= len(got) < total
        survivor = await tap(other, one(exchange), prefetch=300)
        got += await survivor.receive(total - len(got))
        await sending
        assert not any(item.redelivered for item in got)
        assert [int(item.body) for item in got] == list(range(total))


async def test_stop_may_be_cancelled_and_repeated(amqp_url: str, exchange: str) -> None:
    """A cancelled `stop` is still a stop; the next one waits for it."""
    async with session(amqp_url) as (driver, _):
        subscription = await tap(driver, one(exchange), prefetch=10)
        stopping = asyncio.create_task(subscription.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await subscription.stop()
        assert await driver.subscribers(one(exchange)) == 0


async def test_presence_of_each_kind(amqp_url: str, exchange: str) -> None:
    """Shared and server addresses are counted, an inbox is there or not, fanout cannot be told."""
    async with session(amqp_url) as (driver, _), session(amqp_url) as (other, _):
        assert await driver.subscribers(one(exchange)) == 0
        subscriptions = [await tap(driver, one(exchange), prefetch=1) for _ in range(3)]
        replies = await tap(driver, inbox(exchange), prefetch=0)
        assert await other.subscribers(one(exchange)) == 3
        assert await other.subscribers(replies.address) == 1
        assert await driver.subscribers(replies.address) == 1
        assert await other.subscribers(everyone(exchange)) is None
        await subscriptions[0].close()
        await replies.close()
        assert await other.subscribers(one(exchange)) == 2
        assert await other.subscribers(replies.address) == 0


async def test_questions_do_not_disturb_each_other(amqp_url: str, exchange: str) -> None:
    """A no closes the channel it was asked on; whoever asks at the same time, or was cancelled, is not touched."""
    async with session(amqp_url) as (driver, events):
        await tap(driver, one(exchange, "there"), prefetch=1)
        asked = [
            asyncio.create_task(driver.subscribers(one(exchange, topic))) for topic in ("there", "nowhere") * 20
        ]
        await asyncio.sleep(0)
        for task in asked[10:20]:
            task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert answers[:10] + answers[20:] == [1, 0] * 15
        assert not events.losses


async def test_a_turn_leaves_in_two_writes(amqp_url: str, exchange: str) -> None:
    """The first message of a quiet time goes at once; the hundred others of its loop turn go together."""
    async with session(amqp_url) as (driver, _):
        subscription = await tap(driver, inbox(exchange), prefetch=0)
        route = driver.route(subscription.address)
        stream = driver._publishing._stream
        assert stream is not None
        writes: list[int] = []
        write = stream.write

        def counted(data: bytes | bytearray | memoryview) -> None:
            writes.append(len(data))
            write(data)

        stream.write = counted  # type: ignore[method-assign]
        for expected in (2, 3, 4):
            for _ in range(101):
                driver.send(route, b"x" * 100, None)
            assert len(await subscription.receive(101)) == 101
            assert len(writes) == expected


async def test_cancelled_subscribe_leaves_nothing(rabbit: Rabbit, exchange: str) -> None:
    """Wherever it is cancelled: no consumer, no private queue, no binding stays behind."""
    async with session(rabbit.url) as (driver, events):
        await tap(driver, everyone(exchange), prefetch=1)

        async def private() -> list[str]:
            rows = await rabbit.list("queues", "name", "owner_pid", "messages")
            return [str(row["name"]) for row in rows if str(row["name"]).startswith("amq.gen")]

        for turns in range(0, 60, 3):
            task = asyncio.create_task(tap(driver, everyone(exchange), prefetch=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            for done in await asyncio.gather(task, return_exceptions=True):
                if not isinstance(done, BaseException):
                    await done.close()
        bindings = await rabbit.list("bindings", "source_name", "destination_name")
        assert len([row for row in bindings if row["source_name"] == f"{exchange}.compute.fanout"]) == 1
        consumers = await rabbit.list("consumers", "queue_name")
        assert len([row for row in consumers if row["queue_name"] in await private()]) == 1
        assert not events.losses
