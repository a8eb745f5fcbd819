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
from rpclib.testing.waiting import Recorder, tap
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
        level = hub.Level()
        for level.full in (True, False):
            dead.notify_level(dead.gate, level)
        dead.from_elsewhere(print)
        await driver.close()

    asyncio.run(others())
    asyncio.run(dead.close())
