"""Liveness: silent sessions are given up, absent servers told, and nothing healthy is condemned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.address import Address
from rpclib.driver import Capability
from rpclib.link import backoff, watch
from rpclib.link.loopback import SILENT_TICKS
from rpclib.testing.inside import inside
from rpclib.wire import envelope
from rpclib.wire.control import Alive
from tests.support.scripted import Scripted, World, scripted, turns, until

TICK = 0.01


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TICK", TICK)
    monkeypatch.setattr(backoff, "delay", lambda *_: 0.0)


def connect(driver: type[Scripted], **settings: Any) -> rpclib.Transport:
    return rpclib.connect("x://h", driver=driver, **{"timeout": 5, "grace": 0, **settings})


def pulses(world: World) -> int:
    return sum(isinstance(sent.message, Alive) for sent in world.sent)


def serving(count: int | None) -> Callable[[Address], Awaitable[int | None]]:
    async def present(address: Address) -> int | None:
        return count

    return present


# Loopback.


async def test_a_session_whose_pulse_comes_back_is_kept() -> None:
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver) as rpc:
        await until(lambda: pulses(driver.world) > 3 * SILENT_TICKS)
        assert len(driver.world.sessions) == 1
        for sent in driver.world.sent:
            assert sent.address == Address.inbox(inside(rpc).link.inbox.key or "")
            assert sent.tag == b""
        assert len({sent.message.id for sent in driver.world.sent}) == len(driver.world.sent)


async def test_a_silent_session_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver) as rpc:
        await until(lambda: pulses(driver.world) > 1)
        driver.world.deaf = True
        call = asyncio.create_task(rpc.client("t").call("m"))
        with pytest.raises(rpclib.ConnectionLost, match="x://h does not answer any more") as caught:
            await call
        assert caught.value.maybe_executed
        driver.world.deaf = False
        await until(lambda: inside(rpc).connection.driver)
        assert driver.world.sessions[0].closed
        before = pulses(driver.world)
        await until(lambda: pulses(driver.world) > before + 2 * SILENT_TICKS)
        assert len(driver.world.sessions) == 2
    assert "does not answer any more" in caplog.text


async def test_silence_is_counted_in_ticks() -> None:
    """A loop that stood still for long has not heard anything either, and must not conclude from that."""
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver) as rpc:
        driver.world.deaf = True
        await until(lambda: pulses(driver.world))
        end = monotonic() + 10 * SILENT_TICKS * TICK
        while monotonic() < end:
            pass
        await turns(3)
        driver.world.deaf = False
        driver.world.session.deliver(Address.inbox(inside(rpc).link.inbox.key or ""), driver.world.sent[-1].body)
        await until(lambda: pulses(driver.world) > 2 * SILENT_TICKS)
        assert len(driver.world.sessions) == 1


@pytest.mark.parametrize("how", ["blocked", "session", "inbox"])
async def test_a_session_that_takes_nothing_is_not_silent(how: str) -> None:
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver) as rpc:
        await until(lambda: pulses(driver.world))
        own = driver.world.session.gates[Address.inbox(inside(rpc).link.inbox.key or "")]
        driver.world.deaf = True
        if how == "blocked":
            driver.world.session.observer.blocked("low on disk")
        else:
            gates = {"session": driver.world.session.gate, "inbox": own}
            gates[how].full(True)
        await asyncio.sleep(3 * SILENT_TICKS * TICK)
        assert len(driver.world.sessions) == 1
        driver.world.session.observer.blocked(None)
        driver.world.session.gate.full(False)
        own.full(False)
        await until(lambda: len(driver.world.sessions) == 2)
        await until(lambda: inside(rpc).connection.driver)


async def test_within_one_process_there_is_no_pulse() -> None:
    driver = scripted()
    driver.world.deaf = True
    async with connect(driver):
        await asyncio.sleep(3 * SILENT_TICKS * TICK)
        assert (pulses(driver.world), len(driver.world.sessions)) == (0, 1)


async def test_a_session_found_dead_by_its_pulse_is_replaced() -> None:
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver):
        await until(lambda: pulses(driver.world))
        driver.world.session.lose(told=False)
        await until(lambda: len(driver.world.sessions) == 2)


async def test_without_a_session_it_waits() -> None:
    driver = scripted([Capability.CROSS_PROCESS])
    async with connect(driver) as rpc:

        async def refuse(host: str) -> None:
            await asyncio.sleep(TICK)
            raise rpclib.Unreachable("refused")

        driver.world.on_open = refuse
        driver.world.session.lose()
        await until(lambda: len(driver.world.opened) > 5)
        driver.world.on_open = None
        before = pulses(driver.world)
        await until(lambda: pulses(driver.world) > before)
        assert rpc.counters.reconnects == 1


# Presence.


async def test_a_call_whose_servers_are_gone_is_told() -> None:
    driver = scripted([Capability.PRESENCE])
    asked: list[Address] = []

    async def present(address: Address) -> int:
        asked.append(address)
        return 0 if address.topic == "gone" else 1

    driver.world.present = present
    async with connect(driver) as rpc:
        stays = asyncio.create_task(rpc.client("stays", route_grace=0).call("m"))
        with pytest.raises(rpclib.NoServer, match=r'all servers of "gone\.s" .* are gone; m may') as caught:
            await rpc.client("gone", route_grace=0).to("s").call("m")
        assert caught.value.maybe_executed
        assert [address.key for address in asked if address.topic == "gone"] == ["s", "s"], "nobody twice in a row"
        assert not stays.done()
        stays.cancel()
        await asyncio.gather(stays, return_exceptions=True)


async def test_calls_within_their_grace_are_not_asked_about() -> None:
    driver = scripted([Capability.PRESENCE])
    driver.world.present = serving(0)
    async with connect(driver) as rpc:
        with pytest.raises(rpclib.CallTimeout):
            await rpc.client("t", timeout=10 * TICK, route_grace=60).call("m")


async def test_absence_must_last() -> None:
    driver = scripted([Capability.PRESENCE])
    answers = iter([0, 1, 0, 1, 0, 1, 0, 1])
    asked = asyncio.Event()

    async def present(address: Address) -> int:
        answer = next(answers, None)
        if answer is None:
            asked.set()
            return 1
        return answer

    driver.world.present = present
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t", route_grace=0).call("m"))
        await asked.wait()
        assert not call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_one_question_for_all_calls_to_an_address() -> None:
    driver = scripted([Capability.PRESENCE])
    asked: list[Address] = []

    async def present(address: Address) -> int:
        asked.append(address)
        return 0

    driver.world.present = present
    async with connect(driver) as rpc:
        client = rpc.client("t", route_grace=0)
        ended = await asyncio.gather(*(client.call("m") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(one, rpclib.NoServer) for one in ended)
    assert len(asked) <= 4


@pytest.mark.parametrize("answer", [None, rpclib.Unreachable("not now"), rpclib.ConnectionLost("dead")])
async def test_a_backend_that_cannot_tell_ends_no_call(answer: Exception | None) -> None:
    driver = scripted([Capability.PRESENCE])
    asked = 0

    async def present(address: Address) -> int | None:
        nonlocal asked
        asked += 1
        if answer is not None and asked == 1:
            raise answer
        return None

    driver.world.present = present
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t", route_grace=0).call("m"))
        await until(lambda: asked)
        await turns()
        if isinstance(answer, rpclib.ConnectionLost):
            await until(lambda: len(driver.world.sessions) == 2)
            with pytest.raises(rpclib.ConnectionLost):
                await call
        else:
            await until(lambda: asked > 3)
            assert not call.done()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)


async def test_an_answer_that_never_comes_does_not_keep_the_pulse_back() -> None:
    driver = scripted([Capability.PRESENCE, Capability.CROSS_PROCESS])

    async def present(address: Address) -> int:
        await asyncio.Event().wait()
        raise AssertionError

    driver.world.present = present
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t", route_grace=0).call("m"))
        await until(lambda: pulses(driver.world) > 3)
        driver.world.deaf = True
        with pytest.raises(rpclib.ConnectionLost, match="does not answer any more"):
            await call


async def test_watching_ends_with_the_transport(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    driver = scripted([Capability.CROSS_PROCESS, Capability.PRESENCE])
    async with connect(driver):
        await until(lambda: pulses(driver.world))
    before = len(driver.world.sent)
    await asyncio.sleep(3 * TICK)
    assert len(driver.world.sent) == before
    assert isinstance(envelope.decode(driver.world.sent[0].body), Alive)
