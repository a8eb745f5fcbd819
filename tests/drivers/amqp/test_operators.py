"""What operators do to a broker in use: deleting, forbidding, declaring otherwise."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

import rpclib
from rpclib.errors import AccessDenied
from rpclib.testing.waiting import tap, until
from tests.drivers.amqp.session import connect, consumers, ended, everyone, inbox, one, ours, session, waiting
from tests.support.rabbit import Rabbit


class Echo:
    @rpclib.expose
    async def echo(self, value: int) -> int:
        return value


async def test_deleted_queue_comes_back(rabbit: Rabbit, exchange: str) -> None:
    """Within the session, with one consumer; what had arrived can still be taken."""
    async with session(rabbit.url) as (driver, events):
        subscription = await tap(driver, one(exchange), prefetch=10)
        route = driver.route(one(exchange))
        driver.send(route, b"before", None)
        await waiting(subscription)
        for _ in range(3):
            await rabbit.ctl("delete_queue", f"{exchange}.compute")
            await until(lambda: ours(subscription).established, "a new consumer")
            while await driver.subscribers(one(exchange)) != 1:
                await asyncio.sleep(0.01)
        driver.send(route, b"after", None)
        assert [item.body for item in await subscription.receive(2)] == [b"before", b"after"]
        assert await consumers(rabbit, f"{exchange}.compute") == 1
        assert not events.losses


async def test_deleted_fanout_queue_comes_back(rabbit: Rabbit, exchange: str) -> None:
    """Under another name, since the broker chooses it."""
    async with session(rabbit.url) as (driver, events):
        subscription = await tap(driver, everyone(exchange), prefetch=10)
        first = ours(subscription).queue
        await rabbit.ctl("delete_queue", first)
        await until(lambda: ours(subscription).queue != first, "another queue")
        await until(lambda: ours(subscription).established, "a new consumer")
        driver.send(driver.route(everyone(exchange)), b"again", None)
        assert [item.body for item in await subscription.receive()] == [b"again"]
        assert not events.losses


async def test_deleted_inbox_ends_the_session(rabbit: Rabbit, exchange: str) -> None:
    """Its name is known to others and cannot be had again, and replies may have gone with it."""
    driver, events = await connect(rabbit.url)
    replies = await tap(driver, inbox(exchange), prefetch=0)
    await rabbit.ctl("delete_queue", replies.address.key)
    await ended(driver, events, "inbox")


async def test_deleted_exchange_comes_back(rabbit: Rabbit, exchange: str) -> None:
    """With the bindings of every session, and soon, though the broker tells nobody."""
    delete = 'rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"{}">>), false, <<"test">>).'
    async with (
        session(rabbit.url) as (left, _),
        session(rabbit.url) as (right, _),
        session(rabbit.url) as (sender, _),
    ):
        subscriptions = [
            await tap(left, one(exchange, server="left"), prefetch=10),
            await tap(right, one(exchange, server="right"), prefetch=10),
            await tap(left, everyone(exchange), prefetch=10),
            await tap(right, everyone(exchange), prefetch=10),
        ]
        for name in (exchange, f"{exchange}.compute.fanout"):
            await rabbit.ctl("eval", delete.format(name))
        began = time.monotonic()

        async def bound() -> int:
            rows = await rabbit.list("bindings", "source_name")
            return sum(row["source_name"].startswith(exchange) for row in rows)

        while await bound() < 4:
            assert time.monotonic() - began < 5
        for address in (one(exchange, server="left"), one(exchange, server="right"), everyone(exchange)):
            sender.send(sender.route(address), b"again", None)
        for subscription in subscriptions:
            assert [item.body for item in await subscription.receive()] == [b"again"]


async def test_message_for_a_deleted_exchange_ends_the_session(rabbit: Rabbit, exchange: str) -> None:
    """Everything sent after it is lost with the channel, so every call in flight must learn of it."""
    driver, events = await connect(rabbit.url)
    subscription = await tap(driver, one(exchange), prefetch=10)
    route = driver.route(one(exchange))
    for body in (b"0", b"1"):
        driver.send(route, body, None)
    await subscription.receive(2)
    await subscription.close()
    await rabbit.ctl(
        "eval", f'rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"{exchange}">>), false, <<"test">>).'
    )
    driver.send(route, b"2", None)
    await ended(driver, events, "no exchange", exchange)


async def test_refused_message_concerns_nobody_else(rabbit: Rabbit, exchange: str) -> None:
    """A user who may not write to a topic: each message there is refused, by itself, as often as it is tried; the
    session goes on."""
    await rabbit.ctl("add_user", "writer", "secret")
    await rabbit.ctl("set_permissions", "writer", "", ".*", ".*")
    await rabbit.ctl("set_topic_permissions", "writer", exchange, "^open", ".*")
    try:
        url = rabbit.url.replace(rabbit.url.split("@")[0], "amqp://writer:secret")
        async with session(rabbit.url) as (server, _), session(url) as (driver, events):
            closed = await tap(server, one(exchange), prefetch=10)
            opened = await tap(server, one(exchange, "open"), prefetch=10)
            for number in range(3):
                for body in (b"x", b"y"):
                    driver.send(driver.route(one(exchange)), body, None)
                driver.send(driver.route(one(exchange, "open")), b"fine", None)
                await until(lambda: len(events.refusals) == 2 * (number + 1), "the refusals")  # noqa: B023
                assert [item.body for item in await opened.receive()] == [b"fine"]
            assert [body for body, _ in events.refusals] == [b"x", b"y"] * 3
            errors = [error for _, error in events.refusals]
            assert all(type(error) is AccessDenied and exchange in str(error) for error in errors)
            assert len({id(error) for error in errors}) == 6
            assert not closed.take(10)
            assert not events.returned
            assert not events.losses
    finally:
        await rabbit.ctl("delete_user", "writer")


async def test_refused_call_and_cast_are_told(rabbit: Rabbit, exchange: str) -> None:
    """A user who may not write to the exchange: the call ends with what the broker says, other calls go on."""
    await rabbit.ctl("add_user", "reader", "secret")
    await rabbit.ctl("set_permissions", "reader", ".*", "^(amq\\.default|amq\\.gen.*|reader.*)$", ".*")
    lost: list[rpclib.Undeliverable] = []
    try:
        url = rabbit.url.replace(rabbit.url.split("@")[0], "amqp://reader:secret")
        async with rpclib.connect(rabbit.url, exchange=exchange) as rpc, rpc.server("t", [Echo()]):
            async with rpclib.connect(url, exchange="reader", on_undeliverable=lost.append) as mine:
                async with mine.server("t", [Echo()]):
                    slow = asyncio.create_task(mine.client("t").call("echo", value=1))
                    forbidden = mine.client(rpclib.Target("t", exchange=exchange))
                    for _ in range(3):
                        with pytest.raises(AccessDenied, match=exchange):
                            await forbidden.call("echo", value=2)
                    await forbidden.cast("echo", value=3)
                    await until(lambda: lost, "the cast")
                    assert exchange in lost[0].reason
                    assert await slow == 1
                    assert (mine.counters.undeliverable, mine.counters.reconnects) == (1, 0)
    finally:
        await rabbit.ctl("delete_user", "reader")


async def test_without_configure_permission(rabbit: Rabbit, exchange: str) -> None:
    """What exists is used as it is; what does not is a clear refusal, and the session goes on."""
    await rabbit.ctl("add_user", "user", "secret")
    await rabbit.ctl("set_permissions", "user", "", ".*", ".*")
    try:
        async with session(rabbit.url) as (server, _):
            await tap(server, one(exchange), prefetch=1)
            url = rabbit.url.replace(rabbit.url.split("@")[0], "amqp://user:secret")
            async with session(url) as (driver, events):
                subscription = await tap(driver, one(exchange), prefetch=1)
                assert await driver.subscribers(one(exchange)) == 2
                with pytest.raises(AccessDenied, match=f"{exchange}.compute.mine"):
                    await tap(driver, one(exchange, server="mine"), prefetch=1)
                with pytest.raises(AccessDenied, match="private queue"):
                    await tap(driver, inbox(exchange), prefetch=1)
                await subscription.close()
                assert not events.losses
    finally:
        await rabbit.ctl("delete_user", "user")


async def test_queue_with_other_arguments_is_used(
    rabbit: Rabbit, exchange: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Someone else's properties are theirs to change; one warning tells."""
    async with session(rabbit.url) as (driver, _):
        await driver.control._ask("queue_declare", f"{exchange}.compute", durable=True)
        subscription = await tap(driver, one(exchange), prefetch=1)
        driver.send(driver.route(one(exchange)), b"x", None)
        await subscription.receive()
        await driver.control.delete(f"{exchange}.compute")
    [record] = [record for record in caplog.records if "properties" in record.message]
    assert (record.name, record.levelno) == ("rpclib_amqp", logging.WARNING)
