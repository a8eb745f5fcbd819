"""Losing a session: what survives, what is made again, and how often it is tried."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.errors import TransportError
from rpclib.link import backoff, connection
from rpclib.testing.inside import inside
from tests.support.scripted import Scripted, Sent, scripted, turns, until

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


# Losing the session.


async def test_everything_is_subscribed_again_in_order_before_senders_go() -> None:
    driver = scripted()
    world = driver.world
    async with rpclib.connect(URL, driver=driver) as rpc:
        async with rpc.server(rpclib.Target("t", server="s"), [Echo()]):
            before = list(world.subscribed)
            assert [(address.kind, address.key) for address in before] == [
                (Kind.INBOX, ""),
                (Kind.ONE, ""),
                (Kind.ONE, "s"),
                (Kind.ALL, ""),
            ]
            gate = asyncio.Event()

            async def on_subscribe(address: Address) -> None:
                if address.kind is Kind.ALL:
                    await gate.wait()

            world.on_subscribe = on_subscribe
            world.session.lose()
            cast = asyncio.create_task(rpc.client("other").cast("m"))
            await until(lambda: len(world.subscribed) == 7)
            await turns()
            assert not cast.done()
            assert not world.requests
            gate.set()
            await cast
            assert world.subscribed[4:] == before
            assert world.opened == ["h1", "h2"]
            assert rpc.counters.reconnects == 1
            assert await rpc.client("t").call("echo", value=1) == 1


@pytest.mark.parametrize("told", [True, False])
async def test_a_session_lost_while_subscribing_again_is_replaced(told: bool) -> None:
    driver = scripted()
    world = driver.world
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server(rpclib.Target("t", server="s"), [Echo()]):

        async def on_subscribe(address: Address) -> None:
            if len(world.sessions) == 2 and address.key == "s":
                world.session.lose("again", told=told)
            if len(world.sessions) == 3 and address.kind is Kind.ALL and told:
                world.session.observer.lost(rpclib.ConnectionLost("late"))  # while it still answers

        world.on_subscribe = on_subscribe
        world.session.lose()
        assert await rpc.client("t").call("echo", value=1) == 1
        assert world.opened == ["h1", "h2", "h1", *(["h2"] if told else [])]
        assert [session.closed for session in world.sessions] == [True] * (len(world.sessions) - 1) + [False]
        assert rpc.counters.reconnects == 1


async def test_a_server_that_stops_meanwhile_costs_no_other_its_subscription() -> None:
    driver = scripted()
    world = driver.world
    async with rpclib.connect(URL, driver=driver) as rpc:
        going = rpc.server(rpclib.Target("going", server="s"), [Echo()])
        await going.start()
        async with rpc.server(rpclib.Target("staying", server="s"), [Echo()]):
            gate, waiting = asyncio.Event(), asyncio.Event()

            async def on_subscribe(address: Address) -> None:
                if address.topic == "going" and address.key == "s":
                    waiting.set()
                    await gate.wait()

            world.on_subscribe = on_subscribe
            world.session.lose()
            await waiting.wait()
            await going.stop()
            gate.set()
            client = rpc.client("staying")
            assert await client.call("echo", value=1) == 1
            assert await client.to("s").call("echo", value=2) == 2
            live = {(tray.address.topic, tray.address.key) for tray in world.session.subscriptions}
            assert not [name for name in live if name[0] == "going"], "nobody will ever take from these"


async def test_a_driver_that_raises_in_close_is_replaced_all_the_same() -> None:
    driver = scripted()

    async def on_close(session: Scripted) -> None:
        if session is driver.world.sessions[0]:
            raise RuntimeError("cannot close")

    driver.world.on_close = on_close
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server("t", [Echo()]):
        driver.world.session.lose()
        assert await rpc.client("t").call("echo", value=1) == 1


async def test_what_a_replaced_session_says_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    driver = scripted()
    world = driver.world
    async with rpclib.connect(URL, driver=driver) as rpc:
        world.session.lose()
        await until(lambda: inside(rpc).connection.driver)
        world.sessions[0].observer.lost(rpclib.ConnectionLost("I am dead"))
        await turns()
        assert (len(world.sessions), rpc.counters.reconnects) == (2, 1)
        assert "I am dead" not in caplog.text


async def test_each_change_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rpclib")
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc:
        driver.world.session.lose("broken pipe")
        await until(lambda: inside(rpc).connection.driver)
        driver.world.session.observer.blocked("low on memory")
        assert inside(rpc).connection.blocked == "low on memory"
        driver.world.session.observer.blocked(None)
        assert inside(rpc).connection.blocked is None
    assert [record.getMessage() for record in caplog.records if record.name == "rpclib"] == [
        "lost the connection to x://h1: broken pipe",
        "connected again to x://h2",
        "x://h2 takes no messages at the moment: low on memory",
        "x://h2 takes messages again",
    ]


async def test_a_new_session_is_not_blocked_because_the_old_one_was() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc:
        driver.world.session.observer.blocked("low on memory")
        driver.world.session.lose()
        assert inside(rpc).connection.blocked is None
        assert inside(rpc).link.inbox.key is None
        await until(lambda: inside(rpc).connection.driver)


async def test_waiting_senders_are_told_why_there_is_no_connection() -> None:
    driver = scripted()
    async with rpclib.connect(URL, driver=driver) as rpc:
        driver.world.on_open = refusing("h1", "h2")
        driver.world.session.lose()
        for send in (rpc.client("t", timeout=0.05).call("m"), rpc.client("t", timeout=0.05).cast("m")):
            with pytest.raises(rpclib.Unreachable, match=r"x://h1: h1 refused; x://h2: h2 refused"):
                await send
        assert not inside(rpc).calls.table


async def test_wrong_credentials_after_a_loss_are_tried_again() -> None:
    driver = scripted()
    async with rpclib.connect("x://h1", driver=driver) as rpc, rpc.server("t", [Echo()]):
        driver.world.on_open = refusing("h1", error=rpclib.AccessDenied("rotating"))
        driver.world.session.lose()
        await until(lambda: len(driver.world.opened) > 5)
        driver.world.on_open = None
        assert await rpc.client("t").call("echo", value=1) == 1


# Back-off.


async def test_refusals_are_counted_and_one_delay_made_a_round(quick: list[int]) -> None:
    driver = scripted()
    driver.world.on_open = refusing("h1", "h2")
    with pytest.raises(rpclib.Unreachable):
        await rpclib.connect(URL, driver=driver, connect_timeout=0.05).open()
    assert driver.world.opened[:4] == ["h1", "h2", "h1", "h2"]
    assert quick[:3] == [2, 4, 6]
    assert len(quick) >= len(driver.world.opened) // 2 - 1


async def test_a_flapping_session_is_slowed_down(quick: list[int]) -> None:
    driver = scripted()
    async with rpclib.connect("x://h1", driver=driver) as rpc:
        for _ in range(5):
            before = len(driver.world.sessions)
            driver.world.session.lose()
            await until(lambda: len(driver.world.sessions) > before and inside(rpc).connection.driver)  # noqa: B023
    assert quick == [1, 2, 3, 4, 5]


async def test_flapping_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real delays, a session that ends as it begins is opened a handful of times in half a second."""
    monkeypatch.undo()
    driver = scripted()
    async with rpclib.connect("x://h1", driver=driver) as rpc:

        async def on_subscribe(address: Address) -> None:
            driver.world.session.lose()

        driver.world.on_subscribe = on_subscribe
        driver.world.session.lose()
        with pytest.raises(rpclib.Unreachable):
            await rpc.client("t", timeout=0.5).cast("m")
        assert 2 < len(driver.world.sessions) < 60


async def test_a_good_session_makes_bad_ones_forgotten(monkeypatch: pytest.MonkeyPatch, quick: list[int]) -> None:
    driver = scripted()
    async with rpclib.connect("x://h1", driver=driver) as rpc:
        for stable, expected in ((100.0, [1]), (100.0, [1, 2]), (-1.0, [1, 2]), (-1.0, [1, 2]), (100.0, [1, 2, 1])):
            monkeypatch.setattr(connection, "_STABLE", stable)
            before = len(driver.world.sessions)
            driver.world.session.lose()
            await until(lambda: len(driver.world.sessions) > before and inside(rpc).connection.driver)  # noqa: B023
            assert quick == expected


# Sending into a dead session.


@pytest.mark.parametrize("how", ["call", "cast", "fanout"])
async def test_a_send_that_finds_the_session_dead_is_made_again_once(how: str) -> None:
    driver = scripted()
    world = driver.world
    async with rpclib.connect(URL, driver=driver) as rpc, rpc.server("t", [Echo()]):
        client = rpc.client("t")
        assert await client.call("echo", value=0) == 0
        world.session.lose(told=False)
        assert await getattr(client, how)("echo", value=1) == (1 if how == "call" else None)
        assert [request.args for request in world.requests] == [{"value": 0}, {"value": 1}]
        world.sessions[0].observer.lost(rpclib.ConnectionLost("told late"))
        await turns()
        assert len(world.sessions) == 2


async def test_calls_in_flight_fail_when_another_send_finds_it_dead() -> None:
    driver = scripted()
    driver.world.deaf = True
    async with rpclib.connect(URL, driver=driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: inside(rpc).calls.table)
        driver.world.session.lose(told=False)
        await rpc.client("t").cast("m")
        with pytest.raises(rpclib.ConnectionLost, match=r"lost \(while waiting for m on") as caught:
            await call
        assert caught.value.maybe_executed


async def test_a_session_that_never_takes_anything_is_given_up_at_the_deadline() -> None:
    driver = scripted()

    def on_send(session: Scripted, sent: Sent) -> None:
        session.lose(told=False)
        assert session.error is not None
        raise session.error

    driver.world.on_send = on_send
    async with rpclib.connect(URL, driver=driver) as rpc:
        client = rpc.client("t", timeout=0.1)
        for send in (client.call, client.cast):
            began = monotonic()
            with pytest.raises((rpclib.Unreachable, rpclib.Overloaded, rpclib.CallTimeout)):
                await send("m")
            assert monotonic() - began < 3
        assert not inside(rpc).calls.table
