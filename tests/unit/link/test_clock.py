"""One clock: everything that waits or ages does so by the time of the loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import rpclib
from rpclib.driver import Capability
from rpclib.testing.clock import run
from rpclib.testing.inside import inside
from tests.support.scripted import scripted


class Slow:
    def __init__(self) -> None:
        self.ran = 0

    @rpclib.expose
    async def sleep(self, seconds: float) -> float | None:
        self.ran += 1
        await asyncio.sleep(seconds)
        return rpclib.current_context().remaining


def timed(main: Any) -> tuple[Any, float]:
    began = time.monotonic()
    result = run(main)
    return result, time.monotonic() - began


def test_a_call_of_a_minute_ends_at_once() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with rpclib.connect("fake://clock", grace=0) as rpc, rpc.server("t", [Slow()]):
            client, began = rpc.client("t", timeout=60), loop.time()
            assert await client.call("sleep", seconds=50) == pytest.approx(10, abs=0.1)
            assert loop.time() - began == pytest.approx(50, abs=0.1)
            with pytest.raises(rpclib.CallTimeout, match=r"within 60\.0 s"):
                await client.call("sleep", seconds=100)
            return loop.time() - began

    took, real = timed(main())
    assert took == pytest.approx(110, abs=0.2)
    assert real < 20, "it waited in real time"


def test_what_waits_in_the_backend_ages_by_the_loop() -> None:
    async def main() -> int:
        slow = Slow()
        async with rpclib.connect("fake://clock", grace=0) as rpc, rpc.server("t", [slow], workers=1):
            client = rpc.client("t")
            first = asyncio.create_task(client.call("sleep", seconds=20))
            await asyncio.sleep(1)
            late = [asyncio.create_task(client.prepare(timeout=5).call("sleep", seconds=0)) for _ in range(3)]
            await asyncio.gather(*late, return_exceptions=True)
            assert all(isinstance(each.exception(), rpclib.CallTimeout) for each in late)
            await first
            await asyncio.sleep(1)
            return slow.ran

    assert timed(main())[0] == 1, "it ran what nobody waited for any more"


def test_reconnecting_and_silence_count_by_the_loop() -> None:
    """A backend that refuses for an hour, then answers nothing: back-off and loopback need no real time."""
    driver = scripted([Capability.CROSS_PROCESS])

    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with rpclib.connect("x://h", driver=driver, grace=0) as rpc:
            began = loop.time()

            async def refuse(host: str) -> None:
                if loop.time() - began < 3600:
                    raise rpclib.Unreachable("refused")

            driver.world.on_open = refuse
            driver.world.session.lose()
            await inside(rpc).connection.session()
            assert loop.time() - began >= 3600
            driver.world.deaf = True
            before = len(driver.world.sessions)
            while len(driver.world.sessions) == before:
                await asyncio.sleep(1)
            return loop.time() - began - 3600

    silent, real = timed(main())
    assert 3 < silent < 60
    assert real < 30
