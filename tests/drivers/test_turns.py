"""What an arrival brings about leaves at once: each turn of the loop is latency, and asks the system for news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rpclib.address import Address, Kind
from rpclib.driver import Driver
from rpclib.testing.waiting import tap
from rpclib.url import TransportURL
from rpclib_amqp import AmqpDriver
from rpclib_zmq import ZmqDriver
from tests.drivers.amqp.session import Recorder

DRIVERS: dict[str, type[Driver]] = {"amqp": AmqpDriver, "zmq": ZmqDriver}


class Turns:
    """Numbers the turns of the running loop."""

    def __init__(self) -> None:
        self.now = 0
        self._tick()

    def stop(self) -> None:
        self._handle.cancel()

    def _tick(self) -> None:
        self.now += 1
        self._handle = asyncio.get_running_loop().call_soon(self._tick)


def told_of_writes(driver: Any, told: Callable[[], None]) -> None:
    """Call ``told`` whenever the session writes to the socket that its messages leave by."""
    if type(driver) is AmqpDriver:
        owner, name = driver._publishing._stream, "write"
    else:
        owner, name = driver._channel._wire, "send"
    write = getattr(owner, name)

    def writing(data: Any) -> Any:
        told()
        return write(data)

    setattr(owner, name, writing)


@pytest.mark.parametrize("scheme", ["amqp", "zmq"])
async def test_what_a_woken_task_sends_leaves_in_its_turn(scheme: str, request: pytest.FixtureRequest) -> None:
    """In one write, whatever was sent before."""
    kind = DRIVERS[scheme]
    url = TransportURL.parse(request.getfixturevalue(f"{scheme}_url"))
    driver = await kind.open(url, kind.options(), Recorder())
    loop, turns = asyncio.get_running_loop(), Turns()
    sent: list[int] = []
    written: list[int] = []

    def arrived() -> None:
        loop.call_soon(woken)  # as a task that awaits a future would be

    def woken() -> None:
        sent.append(turns.now)
        for _ in range(3):
            driver.send(answers, b"answer", None)

    try:
        told_of_writes(driver, lambda: written.append(turns.now))
        inbox = await tap(driver, Address(Kind.INBOX, "turns"), prefetch=0)
        answers = driver.route(inbox.address)
        served = Address(Kind.ONE, "turns", "woken")
        requests = await driver.subscribe(served, prefetch=10, arrived=arrived)
        asked = driver.route(served)
        for number in (1, 2):
            driver.send(asked, b"request", None)
            assert len(await inbox.receive(3)) == 3
            assert len(sent) == number
            assert [turn for turn in written if turn >= sent[-1]] == sent[-1:]
            assert len(requests.take(10)) == 1
    finally:
        turns.stop()
        await driver.close()
