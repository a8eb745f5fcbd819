"""What comes back undelivered: sent again within the grace, reported, or answered."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.calling.returned import Returned
from rpclib.testing.inside import inside
from rpclib.wire.answer import Failure, encode_result
from rpclib.wire.control import encode_alive
from rpclib.wire.kinds import CALL
from tests.support.calling import connect, reply
from tests.support.calling import driver as driver
from tests.support.envelopes import encode_request
from tests.support.scripted import Scripted, returning, turns, until


async def test_a_call_to_nobody_is_sent_again_until_the_grace_is_over(
    driver: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    returning(driver.world)
    async with connect(driver) as rpc:
        loop, delays = asyncio.get_running_loop(), list[float]()
        call_later = loop.call_later

        def recorded(delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
            if getattr(callback, "__func__", None) is Returned._resend:
                delays.append(delay)
            return call_later(delay, callback, *args)

        monkeypatch.setattr(loop, "call_later", recorded)
        with pytest.raises(
            rpclib.NoServer, match=r'nobody serves "t" .* on x://h \(no such queue; tried'
        ) as caught:
            await rpc.client("t", route_grace=0.6).call("m", a=1)
        assert caught.value.maybe_executed is False
        assert not inside(rpc).calls.table
    assert delays[:3] == [0.05, 0.1, 0.2]
    assert sum(delays) <= 0.6, "it waited longer than the grace"
    assert len(driver.world.requests) == len(delays) + 1
    assert len({request.id for request in driver.world.requests}) == 1
    remaining = [request.budget or 0 for request in driver.world.requests]
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[0] > remaining[-1]
    assert all(sent.tag == sent.request.id for sent in driver.world.sent)


async def test_a_server_that_comes_within_the_grace_gets_the_call(driver: type[Scripted]) -> None:
    returning(driver.world, times=2)
    driver.world.deaf = True
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: len(driver.world.requests) == 3)
        reply(driver.world, driver.world.requests[-1], "late but there")
        assert await call == "late but there"


async def test_without_grace_it_is_told_at_once(driver: type[Scripted]) -> None:
    returning(driver.world)
    async with connect(driver) as rpc:
        with pytest.raises(rpclib.NoServer):
            await rpc.client("t", route_grace=0).call("m")
        assert len(driver.world.requests) == 1


async def test_a_deadline_before_the_end_of_the_grace_says_that_nobody_is_there(driver: type[Scripted]) -> None:
    returning(driver.world)
    async with connect(driver) as rpc:
        began = monotonic()
        with pytest.raises(rpclib.NoServer) as caught:
            await rpc.client("t", timeout=0.3, route_grace=60).call("m")
        assert caught.value.maybe_executed is False
        assert 0.1 < monotonic() - began < 3


async def test_a_call_that_was_sent_again_and_stayed_away_times_out(driver: type[Scripted]) -> None:
    returning(driver.world, times=1)
    async with connect(driver) as rpc:
        with pytest.raises(rpclib.CallTimeout):
            await rpc.client("t", timeout=0.3, route_grace=60).call("m")


async def test_a_call_that_ended_meanwhile_is_not_sent_again(driver: type[Scripted]) -> None:
    returning(driver.world)
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: driver.world.requests)
        await turns()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.1)
        assert len(driver.world.requests) == 1
        driver.world.session.observer.undeliverable(driver.world.sent[0].body, "late")
        assert rpc.counters.undeliverable == 0


@pytest.mark.parametrize("told", [True, False], ids=["told", "found dead"])
async def test_a_call_that_came_back_outlives_its_session(driver: type[Scripted], told: bool) -> None:
    """Nothing ran, so a lost session is no reason to fail it: it is sent again over the next one."""
    returning(driver.world, times=1)
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: driver.world.requests)
        await turns()
        driver.world.session.lose(told=told)
        await until(lambda: len(driver.world.requests) == 2)
        reply(driver.world, driver.world.requests[1], "ran")
        assert await call == "ran"
    assert driver.world.requests[0].id == driver.world.requests[1].id


async def test_casts_that_come_back_are_reported(driver: type[Scripted], caplog: pytest.LogCaptureFixture) -> None:
    returning(driver.world)
    reported: list[rpclib.Undeliverable] = []

    def report(one: rpclib.Undeliverable) -> None:
        reported.append(one)
        raise RuntimeError("the program's own mistake")

    rpc = rpclib.connect("x://h", driver=driver, on_undeliverable=report)
    async with rpc:
        await rpc.client("t").cast("m", a=1)
        await rpc.client("t").fanout("n")
        await until(lambda: len(reported) == 2)
        assert reported[0] == rpclib.Undeliverable("m", {"a": 1}, "no such queue")
        assert rpc.counters.undeliverable == 2
    assert "on_undeliverable raised" in caplog.text


async def test_without_anybody_to_tell_casts_are_counted(driver: type[Scripted]) -> None:
    returning(driver.world)
    async with connect(driver) as rpc:
        await rpc.client("t").cast("m")
        await until(lambda: rpc.counters.undeliverable == 1)


async def test_a_foreign_call_that_comes_back_is_answered(driver: type[Scripted]) -> None:
    """One that a stopping server of this transport passed on: its caller waits elsewhere."""
    async with connect(driver) as rpc, connect(driver) as other:
        assert inside(other).link.inbox.key is not None
        call = encode_request(CALL, b"f" * 16, "m", {}, 5.0, inside(other).link.inbox.key, None, None, None, None)
        driver.world.sessions[0].observer.undeliverable(call, "gone")
        [answer] = driver.world.sent
        assert answer.address.key == inside(other).link.inbox.key
        failure = answer.message
        assert isinstance(failure, Failure)
        assert (failure.id, failure.code, failure.details) == (b"f" * 16, "NO_SERVER", {"maybe_executed": False})
        driver.world.sessions[0].lose(told=False)
        inside(rpc).connection.observer.undeliverable(call, "gone")
        assert rpc.counters.unanswered == 1


async def test_other_things_that_come_back_are_left_alone(driver: type[Scripted]) -> None:
    async with connect(driver) as rpc:
        for body in (b"rubbish", encode_result(b"i" * 16, 1), encode_alive(b"i" * 16)):
            driver.world.session.observer.undeliverable(body, "gone")
        own = encode_request(
            CALL, inside(rpc).link.ids.next(), "m", {}, 5.0, inside(rpc).link.inbox.key, None, None, None, None
        )
        driver.world.session.observer.undeliverable(own, "its call has ended")
        assert not driver.world.sent
        assert rpc.counters == rpclib.Counters()


async def test_a_lost_worker_ends_its_call(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    async with connect(driver) as rpc:
        call = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: driver.world.sent)
        driver.world.session.observer.worker_lost(b"x" * 16)
        driver.world.session.observer.worker_lost(driver.world.sent[0].tag)
        with pytest.raises(rpclib.WorkerLost, match="had taken m on") as caught:
            await call
        assert caught.value.maybe_executed
        driver.world.session.observer.worker_lost(driver.world.sent[0].tag)
