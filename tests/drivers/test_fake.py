"""What only the in-memory driver has: one hub for all threads and loops of a process, which ends with its users."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Coroutine
from typing import Any

import pytest

import rpclib
from rpclib import sync
from rpclib.address import Address, Kind
from rpclib.conformance.harness import Recorder
from rpclib.conformance.tap import tap
from rpclib.url import TransportURL
from rpclib_fake import FakeDriver, hub
from rpclib_fake.driver import FakeOptions

TOPIC = Address(Kind.ONE, "rpclib", "t")


@pytest.fixture
def url() -> str:
    return f"fake://{uuid.uuid4().hex}"


class Who:
    def __init__(self, name: str) -> None:
        self.name = name

    @rpclib.expose
    async def who(self) -> str:
        return self.name

    @rpclib.expose
    async def thread(self) -> str:
        return threading.current_thread().name


async def session(url: str) -> tuple[FakeDriver, Recorder]:
    events = Recorder()
    return await FakeDriver.open(TransportURL.parse(url), FakeOptions(), events), events


def elsewhere(coroutine: Coroutine[Any, Any, Any]) -> threading.Thread:
    """Run a coroutine on a loop in a thread of its own; `finished` gives what it raised."""

    def work() -> None:
        try:
            asyncio.run(coroutine)
        except BaseException as error:
            thread.error = error  # type: ignore[attr-defined]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


async def finished(thread: threading.Thread) -> None:
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
    if error := getattr(thread, "error", None):
        raise error


# Who meets whom.


def test_threads_meet_at_a_url(url: str) -> None:
    with sync.connect(url) as one, sync.connect(url) as two, sync.connect(url) as three:
        with one.server(rpclib.Target("t", server="a"), [Who("a")]), two.server("t", [Who("b")]):
            answers = {three.client("t").call("who") for _ in range(20)}
            assert answers == {"a", "b"}
            assert three.client("t").to("a").call("who") == "a"
            assert one.client("t").to("a").call("thread") == "rpclib-loop"


async def test_a_loop_and_a_thread_meet(url: str) -> None:
    async with rpclib.connect(url) as rpc, rpc.server("t", [Who("async")]):
        with sync.connect(url) as other:
            assert await asyncio.to_thread(other.client("t").call, "who") == "async"


@pytest.mark.parametrize(
    ("one", "two", "meet"),
    [
        ("", "", True),
        ("", "/", True),
        ("", "?", True),
        ("/a", "/a", True),
        ("/a", "/b", False),
        ("", "x", False),
        (":1", ":2", False),
        (",h2", ",h2", True),
    ],
)
async def test_what_tells_hubs_apart(url: str, one: str, two: str, meet: bool) -> None:
    async with rpclib.connect(url + one) as rpc, rpclib.connect(url + two) as other, rpc.server("t", [Who("x")]):
        call = other.client("t", route_grace=0).call("who")
        if meet:
            assert await call == "x"
        else:
            with pytest.raises(rpclib.NoServer):
                await call


def test_it_has_no_options() -> None:
    with pytest.raises(rpclib.ConfigError, match="speed"):
        rpclib.connect("fake://?speed=9")


# How long it lives.


def test_a_hub_ends_with_its_last_session(url: str) -> None:
    name = url.partition("://")[2] + "/"

    async def leave_something(close: bool) -> None:
        first, _ = await session(url)
        subscription = await tap(first, TOPIC, prefetch=1)
        for number in range(5):
            first.send(first.route(TOPIC), b"%d" % number, None)
        assert subscription.take(1)[0].body == b"0"
        assert name in hub._hubs
        if close:
            await first.close()

    async def find_nothing() -> None:
        first, events = await session(url)
        assert await first.subscribers(TOPIC) == 0
        first.send(first.route(TOPIC), b"hello?", None)
        await asyncio.sleep(0)
        assert events.returned == [b"hello?"]
        await first.close()

    asyncio.run(leave_something(True))
    assert name not in hub._hubs
    asyncio.run(find_nothing())
    assert name not in hub._hubs


def test_a_loop_that_was_closed_without_its_session_disturbs_nobody(url: str) -> None:
    async def forgetful() -> FakeDriver:
        driver, _ = await session(url)
        await tap(driver, TOPIC, prefetch=1)
        await tap(driver, Address(Kind.ALL, "rpclib", "t"), prefetch=1)
        return driver

    dead = asyncio.run(forgetful())

    async def others() -> None:
        driver, _ = await session(url)
        everyone = Address(Kind.ALL, "rpclib", "t")
        alive = await tap(driver, everyone, prefetch=10)
        for number in range(3):
            driver.send(driver.route(everyone), b"%d" % number, None)
            driver.send(driver.route(TOPIC), b"into the void", None)
        assert [item.body for item in await alive.receive(3)] == [b"0", b"1", b"2"]
        dead.tell_congested(False)
        dead.from_elsewhere(print)
        await driver.close()

    asyncio.run(others())
    asyncio.run(dead.close())


# Across threads.


async def test_what_threads_send_arrives_once_and_in_order(url: str) -> None:
    count, senders = 2000, 4
    driver, _ = await session(url)
    subscription = await tap(driver, TOPIC, prefetch=50)

    async def send(name: int) -> None:
        other, events = await session(url)
        route = other.route(TOPIC)
        for number in range(count):
            if other.congested:
                await other.drain()
            other.send(route, b"%d %d" % (name, number), None)
        await other.close()
        assert events.returned == []

    threads = [elsewhere(send(name)) for name in range(senders)]
    got = [item.body.split() for item in await subscription.receive(count * senders)]
    for name in range(senders):
        assert [int(number) for sender, number in got if int(sender) == name] == list(range(count))
        await finished(threads[name])
    assert subscription.take(10) == []
    await driver.close()


async def test_congestion_is_told_and_ended_across_threads(url: str) -> None:
    driver, _ = await session(url)
    subscription = await tap(driver, TOPIC, prefetch=1)
    stuck, through = threading.Event(), threading.Event()

    async def send() -> None:
        other, _ = await session(url)
        sent = 0
        while not other.congested:
            other.send(other.route(TOPIC), b"x", None)
            sent += 1
        assert sent > hub.LOW_WATER
        stuck.set()
        await asyncio.gather(other.drain(), other.drain())
        through.set()
        await other.close()

    thread = elsewhere(send())
    assert await asyncio.to_thread(stuck.wait, 20)
    assert driver.congested, "all senders are held, not only the one that filled it"
    assert (await session(url))[0].congested, "and those that come later"
    taken = 0
    while driver.congested:
        assert not through.is_set()
        taken += len(await subscription.receive(100))
    assert taken > hub.HIGH_WATER - hub.LOW_WATER - 200
    assert await asyncio.to_thread(through.wait, 20)
    await finished(thread)
    await driver.close()


async def test_a_session_that_ends_while_it_drains(url: str) -> None:
    driver, _ = await session(url)
    other, _ = await session(url)
    await tap(other, TOPIC, prefetch=1)
    for closed in (driver, other):  # with the subscriber, the reason to wait goes too
        while not closed.congested:
            closed.send(closed.route(TOPIC), b"x", None)
        draining = asyncio.create_task(closed.drain())
        await asyncio.sleep(0)
        await closed.close()
        with pytest.raises(rpclib.ConnectionLost):
            await draining


@pytest.mark.parametrize("how", ["close", "sever"])
async def test_what_a_thread_had_not_taken_goes_to_another(url: str, how: str) -> None:
    driver, events = await session(url)
    held, go = threading.Event(), threading.Event()

    async def hold() -> None:
        other, _ = await session(url)
        subscription = await tap(other, TOPIC, prefetch=3)
        held.set()
        await subscription.arrived.wait()
        await asyncio.to_thread(go.wait, 20)
        if how == "close":
            await other.close()
        else:
            other.sever()
            await asyncio.sleep(0)

    thread = elsewhere(hold())
    assert await asyncio.to_thread(held.wait, 20)
    for number in range(6):
        driver.send(driver.route(TOPIC), b"%d" % number, None)
    mine = await tap(driver, TOPIC, prefetch=10)
    assert [item.body for item in await mine.receive(3)] == [b"3", b"4", b"5"]
    go.set()
    given_back = await mine.receive(3)
    assert [(item.body, item.redelivered) for item in given_back] == [(b"0", True), (b"1", True), (b"2", True)]
    await finished(thread)
    await mine.close()
    driver.send(driver.route(TOPIC), b"6", None)
    await asyncio.sleep(0)
    assert events.returned == [b"6"]
    await driver.close()


async def test_the_end_of_a_worker_in_another_thread_is_told(url: str) -> None:
    driver, events = await session(url)
    serving = threading.Event()

    async def work() -> None:
        other, _ = await session(url)
        subscription = await tap(other, TOPIC, prefetch=10)
        serving.set()
        one, _two, three = await subscription.receive(3)
        assert (one.body, three.body) == (b"0", b"2")
        other.send(other.route(inbox.address), b"answer", None, b"0" * 16)
        await other.close()

    inbox = await tap(driver, Address(Kind.INBOX, "rpclib"), prefetch=0)
    thread = elsewhere(work())
    assert await asyncio.to_thread(serving.wait, 20)
    for number in range(3):
        driver.send(driver.route(TOPIC), b"%d" % number, None, b"%d" % number * 16 if number < 2 else b"")
    await finished(thread)
    assert [item.body for item in await inbox.receive(1)] == [b"answer"]
    assert events.lost_tags == [b"1" * 16], "the first was answered, the third wanted no answer"
    await driver.close()


async def test_the_last_subscriber_to_leave_returns_what_waits(url: str) -> None:
    driver, events = await session(url)
    one = await tap(driver, TOPIC, prefetch=2)
    two = await tap(driver, TOPIC, prefetch=2)
    for number in range(6):
        driver.send(driver.route(TOPIC), b"%d" % number, None)
    await one.close()
    await asyncio.sleep(0)
    assert events.returned == []
    await two.stop()
    await asyncio.sleep(0)
    assert len(events.returned) == 4
    assert [item.body for item in two.take(10)] == [b"1", b"3"], "what had arrived can still be taken"
    driver.send(driver.route(TOPIC), b"late", None)
    await asyncio.sleep(0)
    assert events.returned[-1] == b"late"
    assert not driver.congested
    await driver.close()


async def test_turns_are_taken_and_the_busy_are_passed_over(url: str) -> None:
    driver, _ = await session(url)
    small, large = [await tap(driver, TOPIC, prefetch=limit) for limit in (1, 3)]
    for number in range(6):
        driver.send(driver.route(TOPIC), b"%d" % number, None)
    assert [item.body for item in small.take(1)] == [b"0"]
    assert [item.body for item in large.take(3)] == [b"1", b"2", b"3"]
    assert [item.body for item in large.take(3)] == [b"5"]
    assert [item.body for item in small.take(3)] == [b"4"]
    await driver.close()


async def test_a_body_beyond_the_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, _ = await session(url)
    monkeypatch.setattr(driver, "max_body", 10)
    with pytest.raises(rpclib.MessageTooLarge):
        driver.send(driver.route(TOPIC), b"x" * 11, None)
    await driver.close()
    with pytest.raises(rpclib.ConnectionLost):
        await tap(driver, TOPIC, prefetch=1)
