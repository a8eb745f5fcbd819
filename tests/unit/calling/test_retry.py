"""Repetition: only of what may have run, and only within the timeout."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.wire.answer import encode_error
from tests.support.calling import Service, connect
from tests.support.calling import driver as driver
from tests.support.scripted import Scripted, Sent


@pytest.mark.parametrize("maybe_executed", [True, False])
async def test_only_what_may_have_run_is_repeated(driver: type[Scripted], maybe_executed: bool) -> None:
    """What surely did not run fails for a reason that repeating does not cure: the grace was waited out."""

    def on_send(session: Scripted, sent: Sent) -> None:
        if sent.tag and sent.address.kind is Kind.ONE:
            error = encode_error(sent.tag, "WORKER_LOST", "", "gone", "", None, {"maybe_executed": maybe_executed})
            session.deliver(Address.inbox(sent.request.reply_to or ""), error)

    driver.world.on_send = on_send
    async with connect(driver) as rpc:
        with pytest.raises(rpclib.WorkerLost) as caught:
            await rpc.client("t", retry=3).call("m", a=1)
        assert caught.value.maybe_executed is maybe_executed
        assert len(driver.world.requests) == (4 if maybe_executed else 1)
        assert len({request.id for request in driver.world.requests}) == len(driver.world.requests)
        driver.world.requests.clear()


async def test_it_succeeds_when_a_repetition_does(driver: type[Scripted]) -> None:
    service = Service()
    async with connect(driver) as rpc, rpc.server("t", [service]):
        call = asyncio.create_task(rpc.client("t", retry=2).call("echo", value=1))

        def on_send(session: Scripted, sent: Sent) -> None:
            if len(driver.world.sessions) < 3 and sent.address.kind is Kind.ONE:
                asyncio.get_running_loop().call_soon(session.lose)

        driver.world.on_send = on_send
        assert await call == 1
        assert len(driver.world.sessions) == 3


@pytest.mark.parametrize("error", ["REMOTE", "NO_SUCH_METHOD", "TIMEOUT"])
async def test_other_errors_are_not_repeated(driver: type[Scripted], error: str) -> None:
    def on_send(session: Scripted, sent: Sent) -> None:
        if sent.address.kind is Kind.ONE:
            body = encode_error(sent.tag, error, "x.Y", "no", "", None, {"maybe_executed": True})
            session.deliver(Address.inbox(sent.request.reply_to or ""), body)

    driver.world.on_send = on_send
    async with connect(driver) as rpc:
        with pytest.raises(rpclib.RpcError):
            await rpc.client("t", retry=3).call("m")
        assert len(driver.world.requests) == 1


async def test_repetitions_stay_within_the_timeout(driver: type[Scripted]) -> None:
    def on_send(session: Scripted, sent: Sent) -> None:
        if sent.address.kind is Kind.ONE:
            asyncio.get_running_loop().call_later(0.1, session.observer.worker_lost, sent.tag)

    driver.world.on_send = on_send
    async with connect(driver) as rpc:
        began = monotonic()
        with pytest.raises((rpclib.CallTimeout, rpclib.WorkerLost)):
            await rpc.client("t", retry=1000, timeout=0.35).call("m")
        assert 0.3 < monotonic() - began < 3
        assert len(driver.world.requests) <= 5
        budgets = [request.budget or 9 for request in driver.world.requests]
        assert budgets == sorted(budgets, reverse=True)
        assert budgets[-1] < 0.26
