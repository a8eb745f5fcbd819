"""Receivers in network namespaces of their own, joined by a cable that can be pulled."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

import rpclib

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

_numbers = itertools.count()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Cable:
    """Two namespaces and the veth pair between them."""

    def __init__(self) -> None:
        self._names = [f"rz{os.getpid() % 10000}{end}{next(_numbers)}" for end in "ab"]
        self.addresses = ["10.211.0.1", "10.211.0.2"]

    def lay(self) -> None:
        a, b = self._names
        for name in self._names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b)
        for name, address in zip(self._names, self.addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")

    def run_in(self, end: int) -> tuple[str, ...]:
        """What to put before a command to run it at that end."""
        return ("ip", "netns", "exec", self._names[end])

    def pull(self) -> None:
        """Drop everything from now on, telling nobody: the ends see neither FIN nor RST."""
        for name in self._names:
            ip("-n", name, "link", "set", "cable", "down")

    def plug(self) -> None:
        for name in self._names:
            ip("-n", name, "link", "set", "cable", "up")

    def remove(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=10)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making network namespaces needs root and the ip command")
    cable = Cable()
    try:
        cable.lay()
        yield cable
    finally:
        cable.remove()


@pytest.fixture
def pair(cable: Cable, machines: Callable[[], Machine]) -> tuple[Machine, Machine]:
    both = machines(), machines()
    for end, machine in enumerate(both):
        own, other = cable.addresses[end], cable.addresses[1 - end]
        arguments = ("--listen", f"{own}:9501", "--peers", f"{other}:9501", "--insecure")
        machine.receiver(*arguments, run_in=cable.run_in(end))
    machine.wait_for(lambda: linked(*both), "the link")
    return both


def linked(*machines: Machine) -> bool:
    return all(machine.status()["links"] for machine in machines)


async def test_a_pulled_cable_is_noticed_and_mended(cable: Cable, pair: tuple[Machine, Machine]) -> None:
    a, b = pair
    b.worker("t", "b")
    a.worker("t2", "a")
    async with rpclib.connect(a.url) as rpc, rpclib.connect(b.url) as back:
        client = rpc.client("t", timeout=20)
        assert await client.call("who") == "b"
        calls = [
            asyncio.create_task(client.call("sleep", seconds=60)),
            asyncio.create_task(back.client("t2").call("sleep", seconds=60)),
        ]
        await a.until(lambda: a.status()["sessions"][0]["unanswered"] == 1, "the call at a")
        await a.until(lambda: b.status()["sessions"][0]["unanswered"] == 1, "the call at b")
        cable.pull()
        began = time.monotonic()
        for call in calls:
            with pytest.raises(rpclib.WorkerLost):
                await call
        assert time.monotonic() - began < 4
        with pytest.raises(rpclib.NoServer):
            await client.prepare(route_grace=0.1).call("who")
        cable.plug()
        await a.until(lambda: linked(a, b), "the link")
        assert await client.prepare(route_grace=10).call("who") == "b"
        assert await back.client("t2", route_grace=10).call("who") == "a"


async def test_nothing_old_arrives_after_a_short_loss(cable: Cable, pair: tuple[Machine, Machine]) -> None:
    """Casts that were under way when the cable was pulled arrive once or not at all, and in order."""
    a, b = pair
    b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:
        client = rpc.client("t", timeout=20, route_grace=10)
        await client.call("who")
        for number in range(100):
            await client.cast("note", number=number)
        await asyncio.sleep(0)  # a loop turn sends them off
        cable.pull()
        for number in range(100, 150):
            await client.cast("note", number=number)
        await a.until(lambda: not a.status()["links"], "the loss")
        cable.plug()
        await a.until(lambda: linked(a, b), "the link")
        await client.call("who")
        await client.cast("note", number=1000)
        while (notes := await client.call("notes"))[-1:] != [1000]:
            await asyncio.sleep(0.01)
        assert notes == sorted(set(notes))
