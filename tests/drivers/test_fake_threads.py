"""The in-memory driver's sessions in several threads: order, back-pressure, and what ends there."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Coroutine
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.testing.waiting import Recorder, tap
from rpclib.url import TransportURL
from rpclib_fake import FakeDriver, hub
from rpclib_fake.driver import FakeOptions

TOPIC = Address(Kind.ONE, "rpclib", "t")


@pytest.fixture
def url() -> str:
    return f"fake://{uuid.uuid4().hex}"


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


async def test_what_threads_send_arrives_once_and_in_order(url: str) -> None:
    count, senders = 2000, 4
    driver, _ = await session(url)
    subscription = await tap(driver, TOPIC, prefetch=50)

    async def send(name: int) -> None:
        other, events = await session(url)
        route = other.route(TOPIC)
        for number in range(count):
            await route.gate.room()
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


async def test_a_full_address_holds_its_senders_across_threads(url: str) -> None:
    driver, _ = await session(url)
    mine = driver.route(TOPIC)
    subscription = await tap(driver, TOPIC, prefetch=1)
    stuck, through = threading.Event(), threading.Event()

    async def send() -> None:
        other, _ = await session(url)
        route, sent = other.route(TOPIC), 0
        while not route.gate.shut:
            other.send(route, b"x", None)
            sent += 1
        assert sent == hub.HIGH_WATER
        stuck.set()
        await asyncio.gather(route.gate.room(), route.gate.room())
        through.set()
        await other.close()

    thread = elsewhere(send())
    assert await asyncio.to_thread(stuck.wait, 20)
    assert mine.gate.shut, "all its senders are held, not only the one that filled it"
    assert (await session(url))[0].route(TOPIC).gate.shut, "and those that come later"
    assert not driver.gate.shut
    taken = 0
    while mine.gate.shut:
        assert not through.is_set()
        taken += len(await subscription.receive(100))
    assert taken > hub.HIGH_WATER // 2 - 200
    assert await asyncio.to_thread(through.wait, 20)
    await finished(thread)
    await driver.close()


async def test_much_at_many_addresses_holds_all_senders(url: str) -> None:
    driver, _ = await session(url)
    other, _ = await session(url)
    body = bytes(hub.HIGH_WATER_BYTES - 1)
    taps = []
    for number in range(hub.ALL_TOGETHER + 1):
        address = Address(Kind.ONE, "rpclib", f"t{number}")
        taps.append(await tap(driver, address, prefetch=1))
        assert not driver.gate.shut
        driver.send(driver.route(address), body, None)
        assert not driver.route(address).gate.shut
    assert driver.gate.shut
    assert other.gate.shut
    room = asyncio.create_task(other.gate.room())
    for each in taps[: hub.ALL_TOGETHER // 2]:
        await asyncio.sleep(0)
        assert not room.done()
        each.take(1)
    taps[-1].take(1)
    await room
    await other.close()
    await driver.close()


async def test_a_session_that_ends_while_it_waits_for_room(url: str) -> None:
    driver, _ = await session(url)
    other, _ = await session(url)
    await tap(other, TOPIC, prefetch=1)
    for closed in (driver, other):  # with the subscriber, the reason to wait goes too
        route = closed.route(TOPIC)
        while not route.gate.shut:
            closed.send(route, b"x", None)
        waiting = [asyncio.create_task(route.gate.room()) for _ in range(2)]
        await asyncio.sleep(0)
        await closed.close()
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(type(error) is rpclib.ConnectionLost for error in errors)
        assert errors[0] is not errors[1]


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
    marked = how == "sever"
    assert [(item.body, item.redelivered) for item in given_back] == [(b"%d" % n, marked) for n in range(3)]
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
    assert not driver.route(TOPIC).gate.shut
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
