"""Many consumers on one channel: none pays for what happens to another."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpclib.errors import AccessDenied
from rpclib.testing.waiting import Tap, tap, until
from rpclib_amqp.consumers import acknowledgements
from tests.drivers.amqp.session import everyone, inbox, one, ours, session, waiting
from tests.support.rabbit import Rabbit


class Channel:
    """The broker's side of a channel: what it holds as delivered and not settled."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def acknowledge(self, tag: int, before_as_well: bool) -> list[int]:
        """What that settles. The tag itself must be held, or the broker closes the channel."""
        assert tag in self.held
        settled = [each for each in self.held if each == tag or (before_as_well and each < tag)]
        self.held = [each for each in self.held if each not in settled]
        return settled


@given(st.integers(1, 6), st.integers(1, 60), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_acknowledges_what_was_taken_once_and_nothing_else(
    consumers: int, steps: int, chance: random.Random
) -> None:
    """Whatever arrives for whom, and whoever takes or gives back how much of its own, oldest first."""
    channel, tag = Channel(), 0
    arrived: list[list[int]] = [[] for _ in range(consumers)]
    for _ in range(steps):
        for _ in range(chance.randrange(8)):
            tag += 1
            channel.held.append(tag)
            chance.choice(arrived).append(tag)
        taken: list[int] = []
        for mine in chance.sample(arrived, chance.randint(0, consumers)):
            count = chance.choice((0, 1, len(mine)))
            if chance.random() < 0.1:
                channel.held = [each for each in channel.held if each not in mine]  # given back
                mine.clear()
            taken += mine[:count]
            del mine[:count]
        if taken:
            oldest = min((mine[0] for mine in arrived if mine), default=None)
            settled = [each for ack in acknowledgements(taken, oldest) for each in channel.acknowledge(*ack)]
            assert sorted(settled) == sorted(taken)
        assert channel.held == sorted(each for mine in arrived for each in mine)


def test_few_frames() -> None:
    """One for all that has no gap before it, whatever their number and order."""
    assert acknowledgements(range(1, 1000), None) == [(999, True)]
    assert acknowledgements([7, 3, 5], 8) == [(7, True)]
    assert acknowledgements([7, 3, 5, 9], 6) == [(5, True), (7, False), (9, False)]
    assert acknowledgements([7, 8], 6) == [(7, False), (8, False)]


async def unsettled(rabbit: Rabbit, exchange: str, topic: str) -> int:
    rows = await rabbit.list("queues", "name", "messages_unacknowledged")
    return next(int(row["messages_unacknowledged"]) for row in rows if row["name"] == f"{exchange}.{topic}")


async def test_one_that_takes_nothing_holds_up_nobody(rabbit: Rabbit, exchange: str) -> None:
    """Its messages lie between those of the other, which takes, and are acknowledged alone."""
    async with session(rabbit.url) as (driver, _), session(rabbit.url) as (other, _):
        slow = await tap(driver, one(exchange, "slow"), prefetch=10)
        fast = await tap(driver, one(exchange, "fast"), prefetch=5)
        for number in range(50):
            for topic in ("slow", "fast"):
                driver.send(driver.route(one(exchange, topic)), b"%d" % number, None)
        assert [int(item.body) for item in await fast.receive(50)] == list(range(50))
        await waiting(slow, 10)
        assert await unsettled(rabbit, exchange, "fast") == 0
        assert await unsettled(rabbit, exchange, "slow") == 10
        assert [int(item.body) for item in slow.take(3)] == [0, 1, 2]
        await slow.close()
        rest = await (await tap(other, one(exchange, "slow"), prefetch=0)).receive(47)
        assert [(int(item.body), item.redelivered) for item in rest if item.redelivered] == [
            (number, True) for number in range(3, 13)
        ]
        driver.send(driver.route(one(exchange, "fast")), b"on", None)
        assert [item.body for item in await fast.receive()] == [b"on"]


async def test_acknowledgements_are_gathered(amqp_url: str, exchange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for half of what the consumer with the smallest prefetch gets, however few are taken at a time."""
    monkeypatch.setattr("rpclib_amqp.consumers.ACK_DELAY", 60.0)
    async with session(amqp_url) as (driver, _):
        modest = await tap(driver, one(exchange, "modest"), prefetch=10)
        greedy = await tap(driver, one(exchange, "greedy"), prefetch=100)
        channel = driver._consumers._channel
        assert channel is not None
        acknowledged: list[int] = []
        monkeypatch.setattr(channel, "basic_ack", lambda tag, before_as_well: acknowledged.append(tag))
        for _ in range(11):
            driver.send(driver.route(greedy.address), b"", None)
        await waiting(greedy, 11)
        for _ in range(11):
            greedy.take(1)
            await asyncio.sleep(0)
        assert acknowledged == [5, 10]
        assert modest.subscription.waiting == 0


async def test_few_are_acknowledged_soon(rabbit: Rabbit, exchange: str) -> None:
    async with session(rabbit.url) as (driver, _):
        requests = await tap(driver, one(exchange), prefetch=100)
        driver.send(driver.route(requests.address), b"", None)
        await requests.receive()
        async with asyncio.timeout(20):
            while await unsettled(rabbit, exchange, "compute"):
                pass


async def test_prefetch_is_each_consumers_own(rabbit: Rabbit, exchange: str) -> None:
    async with session(rabbit.url) as (driver, _), session(rabbit.url) as (sender, _):
        taps = [await tap(driver, one(exchange, f"t{size}"), prefetch=size) for size in (3, 5, 3)]
        for size in (3, 5):
            for number in range(10):
                sender.send(sender.route(one(exchange, f"t{size}")), b"%d" % number, None)
        await waiting(taps[1], 5)
        await until(lambda: taps[0].subscription.waiting + taps[2].subscription.waiting == 6, "both")
        rows = await rabbit.list("consumers", "queue_name", "prefetch_count", "channel_pid")
        mine = [row for row in rows if row["queue_name"].startswith(f"{exchange}.")]
        assert sorted(row["prefetch_count"] for row in mine) == [3, 3, 5]
        assert len({row["channel_pid"] for row in mine}) == 1


async def test_closed_channel_is_everybodys(rabbit: Rabbit, exchange: str) -> None:
    """All consume again; what nobody had taken comes again, once; a stopped one stays stopped."""
    async with session(rabbit.url) as (driver, events):
        taps = [await tap(driver, one(exchange, f"t{number}"), prefetch=10) for number in range(5)]
        fanout = await tap(driver, everyone(exchange), prefetch=10)
        stopped = await tap(driver, one(exchange, "stopped"), prefetch=10)
        for subscription in (*taps, fanout, stopped):
            driver.send(driver.route(subscription.address), b"before", None)
        for subscription in (*taps, fanout, stopped):
            await waiting(subscription)
        await stopped.stop()
        channel = driver._consumers._channel
        assert channel is not None
        channel.basic_ack(99)  # unknown to the broker, which closes the channel
        await until(lambda: channel.is_closed, "the end")
        assert stopped.take(1) == []
        for subscription in taps:
            [item] = await subscription.receive()
            assert (item.body, item.redelivered) == (b"before", True)
        await until(lambda: ours(fanout).established, "the fanout's return")
        driver.send(driver.route(everyone(exchange)), b"after", None)
        assert [item.body for item in await fanout.receive()] == [b"after"]
        assert await driver.subscribers(one(exchange, "stopped")) == 0
        assert not events.losses


async def test_refused_consumer_harms_nobody(rabbit: Rabbit, exchange: str) -> None:
    """A queue that may not be read: the others go on, and what they have not taken stays theirs."""
    await rabbit.ctl("add_user", "half", "secret")
    await rabbit.ctl("set_permissions", "half", ".*", ".*", f"^({exchange}|.*allowed)$")
    try:
        async with session(rabbit.url.replace(rabbit.url.split("@")[0], "amqp://half:secret")) as (driver, events):
            allowed = await tap(driver, one(exchange, "allowed"), prefetch=10)
            driver.send(driver.route(allowed.address), b"untaken", None)
            await waiting(allowed)
            refused = [tap(driver, one(exchange, f"secret{number}"), prefetch=10) for number in range(5)]
            for result in await asyncio.gather(*refused, return_exceptions=True):
                assert isinstance(result, AccessDenied)
                assert "secret" in str(result)
            [item] = await allowed.receive()
            assert (item.body, item.redelivered) == (b"untaken", False)
            assert not events.losses
    finally:
        await rabbit.ctl("delete_user", "half")


@pytest.mark.parametrize("ending", ["taken", "closed", "session"])
async def test_backlog_of_a_queue_is_not_touched_by_trying_it(rabbit: Rabbit, exchange: str, ending: str) -> None:
    """The first message comes to the trial consumer: in order, not marked, once, and given back like any."""
    async with session(rabbit.url) as (sender, _):
        await (await tap(sender, one(exchange), prefetch=1)).close()
        for number in range(5):
            sender.send(sender.route(one(exchange)), b"%d" % number, None)
        await until(lambda: sender.route(one(exchange)).open, "the queue")

        async def ready() -> int:
            rows = await rabbit.list("queues", "name", "messages_ready")
            return next(int(row["messages_ready"]) for row in rows if row["name"] == f"{exchange}.compute")

        while await ready() < 5:
            pass
        async with session(rabbit.url) as (driver, _):
            backlog: Tap = await tap(driver, one(exchange), prefetch=10)
            if ending == "taken":
                got = await backlog.receive(5)
                assert [(int(item.body), item.redelivered) for item in got] == [(n, False) for n in range(5)]
                assert await unsettled(rabbit, exchange, "compute") == 0
                return
            await waiting(backlog, 5)
            if ending == "closed":
                await backlog.close()
        again = await (await tap(sender, one(exchange), prefetch=10)).receive(5)
        assert [(int(item.body), item.redelivered) for item in again] == [(n, True) for n in range(5)]


async def test_thousand_topics_fit_one_session(amqp_url: str, exchange: str) -> None:
    """More than the broker allows channels; each gets its own messages."""
    async with session(amqp_url) as (driver, events):
        await tap(driver, inbox(exchange), prefetch=0)
        addresses = [one(exchange, f"t{number}") for number in range(800)]
        addresses += [everyone(exchange, f"t{number}") for number in range(700)]
        addresses += [one(exchange, f"t{number}", "me") for number in range(700)]
        taps = await asyncio.gather(*(tap(driver, address, prefetch=2) for address in addresses))
        assert len(driver._consuming._channels) < 10
        for number, address in enumerate(addresses):
            driver.send(driver.route(address), b"%d" % number, None)
        for number, subscription in enumerate(taps):
            assert [item.body for item in await subscription.receive()] == [b"%d" % number]
        assert not events.losses
