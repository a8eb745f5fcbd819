"""The way out: gates of sessions and of routes, routes that need preparing, messages that a backend refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.driver import Capability, Route
from tests.support.calling import Service, connect
from tests.support.calling import driver as driver
from tests.support.scripted import Line, Scripted, Sent, scripted, turns, until

T = Address(Kind.ONE, "rpclib", "t")


@pytest.mark.parametrize("verb", ["call", "cast"])
async def test_a_shut_route_holds_its_own_messages_only(driver: type[Scripted], verb: str) -> None:
    async with connect(driver, timeout=5) as rpc, rpc.server("t", [Service()]), rpc.server("u", [Service()]):
        gate = driver.world.session.gates[T]
        gate.full(True)
        held = asyncio.create_task(getattr(rpc.client("t"), verb)("echo", value=1))
        for number in range(100):
            assert await rpc.client("u").call("echo", value=number) == number
        assert not held.done()
        gate.full(False)
        assert await held == (1 if verb == "call" else None)


@pytest.mark.parametrize("verb", ["call", "cast"])
async def test_a_route_that_stays_shut_is_overloaded(driver: type[Scripted], verb: str) -> None:
    async with connect(driver) as rpc:
        driver.world.session.gates[T].full(True)
        with pytest.raises(rpclib.Overloaded, match="to t was not sent: x://h took no message for"):
            await getattr(rpc.client("t", timeout=0.05), verb)("echo")
        assert not driver.world.requests


async def test_a_driver_prepares_a_route_before_its_first_message() -> None:
    prepared: list[Address] = []
    before: dict[tuple[object, Address], list[Sent]] = {}

    class Preparing(scripted()):  # type: ignore[misc]
        async def prepare(self, route: Route) -> None:
            assert isinstance(route, Line)
            before[self, route.address] = [sent for sent in self.world.sent if sent.address == route.address]
            await asyncio.sleep(0)
            prepared.append(route.address)

    async with connect(Preparing) as rpc, rpc.server("t", [Service()]):
        client = rpc.client("t")
        for number in range(3):
            assert await client.call("echo", value=number) == number
        assert prepared.count(T) == 1
        assert not any(before.values()), "something was sent first"
        Preparing.world.session.lose()
        assert await client.prepare(retry=1).call("echo", value=4) == 4
        assert prepared.count(T) >= 2


async def test_what_cannot_be_prepared_is_told() -> None:
    class Refusing(scripted()):  # type: ignore[misc]
        async def prepare(self, route: Any) -> None:
            raise rpclib.AccessDenied("no right to make a stream")

    async with connect(Refusing) as rpc:
        for verb in ("call", "cast"):
            with pytest.raises(rpclib.AccessDenied, match="no right"):
                await getattr(rpc.client("t"), verb)("echo")


async def test_a_refused_message_ends_its_call_alone(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    async with connect(driver) as rpc:
        refused = asyncio.create_task(rpc.client("t").call("m"))
        other = asyncio.create_task(rpc.client("t").call("m"))
        await until(lambda: len(driver.world.requests) == 2)
        error = rpclib.AccessDenied("no permission for this exchange")
        driver.world.session.observer.refused(driver.world.sent[0].body, error)
        with pytest.raises(rpclib.AccessDenied, match=r'm on "t" .* was not sent: no permission') as caught:
            await refused
        assert caught.value is not error
        await turns()
        assert not other.done()
        assert len(driver.world.sessions) == 1
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_a_refused_cast_is_counted_and_reported(driver: type[Scripted]) -> None:
    driver.world.deaf = True
    told: list[rpclib.Undeliverable] = []
    async with connect(driver) as rpc:
        rpc.on_undeliverable = told.append
        await rpc.client("t").cast("m", a=1)
        driver.world.session.observer.refused(driver.world.sent[0].body, rpclib.TransportError("out of memory"))
    assert rpc.counters.undeliverable == 1
    assert [(one.method, one.args, one.reason) for one in told] == [("m", {"a": 1}, "out of memory")]


async def test_a_session_that_lacks_what_is_required_is_not_used() -> None:
    """A driver may find out only when it has connected that this backend cannot do something."""
    narrow = scripted([Capability.STORES, Capability.ORDERED])

    async def on_open(host: str) -> None:
        narrow.world.session.capabilities = frozenset({Capability.ORDERED})

    narrow.world.on_open = on_open
    async with rpclib.connect("x://h", driver=narrow, require=[Capability.ORDERED]) as rpc:
        assert rpc.capabilities == {Capability.ORDERED}
    with pytest.raises(rpclib.CapabilityMissing, match="x://h: this backend does not do stores"):
        await rpclib.connect("x://h", driver=narrow, require=[Capability.STORES]).open()
    assert all(session.closed for session in narrow.world.sessions)
