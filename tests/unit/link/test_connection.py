"""The connection: which host is tried, what is told, back-pressure, and closing at any moment."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.address import Address
from rpclib.driver import Capability
from rpclib.errors import TransportError
from rpclib.link import backoff
from rpclib.testing.inside import inside
from tests.support.scripted import Scripted, scripted, turns, until

URL = "x://u:s3cr3t@h1,h2"


class Echo:
    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        return value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Back-off without delay; the attempts it was asked about."""
    attempts: list[int] = []

    def delay(attempt: int, error: TransportError, took: float) -> float:
        attempts.append(attempt)
        return 0.0

    monkeypatch.setattr(backoff, "delay", delay)
    return attempts


def refusing(*hosts: str, error: Exception | None = None) -> Any:
    async def on_open(host: str) -> None:
        if host in hosts:
            raise error or rpclib.Unreachable(f"{host} refused")

    return on_open


# Opening.


async def test_the_next_host_is_tried() -> None:
    driver = scripted()
    driver.world.on_open = refusing("h1")
    async with rpclib.connect(URL, driver=driver) as rpc:
        assert driver.world.opened == ["h1", "h2"]
        assert inside(rpc).connection.host == "x://h2"


async def test_a_driver_that_takes_all_hosts_gets_them() -> None:
    driver = scripted(all_hosts=True)
    async with rpclib.connect(URL, driver=driver):
        assert driver.world.opened == ["h1,h2"]


async def test_no_host_at_all() -> None:
    driver = scripted()
    async with rpclib.connect("x://", driver=driver):
        assert driver.world.opened == [""]


async def test_the_first_error_names_every_host() -> None:
    driver = scripted()
    driver.world.on_open = refusing("h1", "h2")
    rpc = rpclib.connect(URL, driver=driver, connect_timeout=0.1)
    began = monotonic()
    with pytest.raises(
        rpclib.Unreachable, match=r"within 0\.1 s: x://h1: h1 refused; x://h2: h2 refused$"
    ) as caught:
        await rpc.open()
    assert 0.09 < monotonic() - began < 3
    assert "s3cr3t" not in str(caught.value)
    assert len(driver.world.opened) > 4, "hosts were not tried again"
    assert not driver.world.sessions
    driver.world.on_open = None
    await rpc.open()
    await rpc.close()


@pytest.mark.parametrize("error", [rpclib.AccessDenied("wrong password"), rpclib.ConfigError("no such vhost")])
async def test_what_trying_again_cannot_cure_is_told_at_once(error: Exception) -> None:
    driver = scripted()
    driver.world.on_open = refusing("h1", error=error)
    with pytest.raises(type(error), match=str(error)):
        await rpclib.connect(URL, driver=driver).open()
    assert driver.world.opened == ["h1"]


async def test_connect_timeout_bounds_a_hanging_open() -> None:
    driver = scripted()

    async def hang(host: str) -> None:
        await asyncio.Event().wait()

    driver.world.on_open = hang
    with pytest.raises(rpclib.Unreachable, match="x://h1: no answer yet; x://h2: no answer yet"):
        async with asyncio.timeout(5):
            await rpclib.connect(URL, driver=driver, connect_timeout=0.05).open()


async def test_a_driver_that_raises_something_else_is_one_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    driver = scripted()
    driver.world.on_open = refusing("h1", error=KeyError("oops"))
    async with rpclib.connect(URL, driver=driver):
        assert driver.world.opened == ["h1", "h2"]
    assert "broke its contract while connecting to x://h1" in caplog.text
    driver.world.on_open = refusing("h1", "h2", error=KeyError("oops"))
    with pytest.raises(rpclib.Unreachable, match="KeyError: 'oops'"):
        await rpclib.connect(URL, driver=driver, connect_timeout=0.05).open()


async def test_a_failing_inbox_closes_what_was_opened() -> None:
    driver = scripted()

    async def on_subscribe(address: Address) -> None:
        raise rpclib.AccessDenied("no inbox for you")

    driver.world.on_subscribe = on_subscribe
    with pytest.raises(rpclib.AccessDenied, match="no inbox"):
        await rpclib.connect(URL, driver=driver).open()
    assert driver.world.session.closed


async def test_a_session_lost_before_it_was_used_is_replaced() -> None:
    driver = scripted()

    async def on_subscribe(address: Address) -> None:
        if len(driver.world.sessions) == 1:
            driver.world.session.lose("at once")

    driver.world.on_subscribe = on_subscribe
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server("t", [Echo()]):
        assert driver.world.opened == ["h1", "h2"]
        assert await rpc.client("t").call("echo", value=1) == 1


async def test_it_cannot_be_opened_twice() -> None:
    async with rpclib.connect(URL, driver=scripted()) as rpc:
        with pytest.raises(rpclib.ConfigError, match="opened before"):
            await rpc.open()
        assert await_driver(rpc)


def await_driver(rpc: rpclib.Transport) -> Scripted:
    driver = inside(rpc).connection.driver
    assert isinstance(driver, Scripted)
    return driver


def test_missing_capabilities_are_told_before_anything_is_opened() -> None:
    driver = scripted([Capability.ORDERED])
    rpclib.connect(URL, driver=driver, require=[Capability.ORDERED])
    with pytest.raises(rpclib.CapabilityMissing, match="stores, presence") as caught:
        rpclib.connect(URL, driver=driver, require=[Capability.STORES, Capability.ORDERED, Capability.PRESENCE])
    assert "s3cr3t" not in str(caught.value)
    assert not driver.world.opened


async def test_before_open_and_after_close_there_is_nothing_to_use() -> None:
    rpc = rpclib.connect(URL, driver=scripted())
    for _ in range(2):
        for use in (rpc.client("t").call("m"), rpc.client("t").cast("m"), rpc.server("t", [Echo()]).start()):
            with pytest.raises(rpclib.TransportClosed):
                await use
        await rpc.close()
    await rpc.close()


# Back-pressure.


async def test_congestion_is_overload_only_at_the_deadline() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc:
        driver.world.session.gate.full(True)
        for client in (rpc.client("t", timeout=0.1), rpc.client("t", timeout=0.1, retry=3)):
            for send in (client.call("m"), client.cast("m"), client.fanout("m")):
                began = monotonic()
                with pytest.raises(
                    rpclib.Overloaded, match=r"m to t was not sent: x://h1 .*send buffer stayed full"
                ):
                    await send
                assert 0.09 < monotonic() - began < 3
        driver.world.session.observer.blocked("low on disk")
        with pytest.raises(rpclib.Overloaded, match=r"\(low on disk\)"):
            await rpc.client("t", timeout=0.02).cast("m")
        assert not driver.world.requests
        assert not inside(rpc).calls.table


async def test_draining_lets_senders_go() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server("t", [Echo()]):
        driver.world.session.gate.full(True)
        sends = [asyncio.create_task(rpc.client("t").call("echo", value=number)) for number in range(3)]
        cast = asyncio.create_task(rpc.client("t").cast("echo"))
        await turns()
        assert not driver.world.requests
        driver.world.session.gate.full(False)
        assert await asyncio.gather(*sends) == [0, 1, 2]
        await cast


async def test_a_loss_while_congested_moves_senders_to_the_next_session() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server("t", [Echo()]):
        driver.world.session.gate.full(True)
        call = asyncio.create_task(rpc.client("t").call("echo", value=1))
        await turns()
        driver.world.session.lose(told=False)  # drain raises before the driver tells
        assert await call == 1
        assert len(driver.world.sessions) == 2


async def test_a_server_starts_while_sending_is_held_up() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver, connect_timeout=0.05) as rpc:
        driver.world.session.gate.full(True)
        async with rpc.server("t", [Echo()], grace=0):
            assert len(driver.world.subscribed) == 4


async def test_a_server_that_finds_no_connection_says_so() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver, connect_timeout=0.05) as rpc:
        driver.world.on_open = refusing("h1", "h2")
        driver.world.session.lose()
        with pytest.raises(rpclib.Unreachable, match="h1 refused"):
            await rpc.server("t", [Echo()]).start()
        assert not inside(rpc).servers


# Closing.


async def test_close_during_open() -> None:
    driver = scripted()
    gate = asyncio.Event()

    async def on_open(host: str) -> None:
        await gate.wait()

    driver.world.on_open = on_open
    rpc = rpclib.connect(URL, driver=driver)
    opening = asyncio.create_task(rpc.open())
    await until(lambda: driver.world.opened)
    await rpc.close()
    gate.set()
    with pytest.raises(rpclib.TransportClosed):
        await opening
    assert driver.world.session.closed


@pytest.mark.parametrize("stage", ["open", "subscribe", "close", "delay"])
async def test_close_during_reopen(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = scripted()
    world, reached = driver.world, asyncio.Event()

    async def hang(_: Any) -> None:
        if len(world.sessions) > 1 or stage == "close":
            reached.set()
            await asyncio.Event().wait()

    rpc = rpclib.connect("x://h1", driver=driver)
    await rpc.open()
    match stage:
        case "open":
            world.on_open = hang
        case "subscribe":
            world.on_subscribe = hang
        case "close":
            world.on_close = hang
        case "delay":

            def delay(*_: Any) -> float:
                reached.set()
                return 1000.0

            monkeypatch.setattr(backoff, "delay", delay)
    waiting = [asyncio.create_task(send) for send in (rpc.client("t").call("m"), rpc.client("t").cast("m"))]
    world.session.gate.full(True)
    await turns()
    world.session.lose()
    await reached.wait()
    world.on_close = None
    await rpc.close()
    for send in waiting:
        with pytest.raises(rpclib.TransportClosed):
            await send
    assert all(session.closed for session in world.sessions)
    assert not inside(rpc).calls.table


async def test_close_during_drain() -> None:
    driver = scripted()
    rpc = rpclib.connect(URL, driver=driver)
    await rpc.open()
    driver.world.session.gate.full(True)
    waiting = [asyncio.create_task(send) for send in (rpc.client("t").call("m"), rpc.client("t").cast("m"))]
    await turns()
    await rpc.close()
    for send in waiting:
        with pytest.raises(rpclib.TransportClosed):
            await send
    assert not inside(rpc).calls.table
