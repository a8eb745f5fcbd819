"""Flow control: bounded everywhere, and nothing dropped silently."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rpclib
from rpclib.testing.inside import inside

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine


def rss(pid: int) -> int:
    """Resident megabytes of a process."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


async def test_a_flood_of_casts_arrives_whole_and_in_order(machine: Machine) -> None:
    machine.worker("t", "a", workers=1)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=30)
        for number in range(5000):
            await client.cast("note", number=number)
        await machine.until(lambda: machine.status()["held_bytes"] == 0, "the queues to empty")
        assert await client.call("notes") == list(range(5000))


async def test_a_cast_that_finds_no_room_is_overloaded_at_its_deadline(machine: Machine) -> None:
    worker = machine.worker("t", "a", workers=1)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=60)
        await client.call("who")
        os.kill(worker.pid, signal.SIGSTOP)
        receiver, pad, sent = machine.receiver_pid(), os.urandom(20_000), 0
        began = time.monotonic()
        with pytest.raises(rpclib.Overloaded):
            while True:
                await client.prepare(timeout=2 if sent > 100 else 60).cast("note", number=sent, pad=pad)
                sent += 1
        assert 100 < sent < 2000, "a bound was met"
        assert time.monotonic() - began >= 2
        assert rss(receiver) < 200
        os.kill(worker.pid, signal.SIGCONT)
        await machine.until(lambda: machine.status()["held_bytes"] == 0, "the queues to empty")
        notes = await client.call("notes")
        assert notes[:100] == list(range(100))
        assert notes == sorted(notes)


async def test_a_slow_topic_does_not_slow_another(machine: Machine) -> None:
    worker = machine.worker("slow", "a", workers=1)
    machine.worker("quick", "b")
    async with rpclib.connect(machine.url) as rpc:
        slow, quick = rpc.client("slow", timeout=5), rpc.client("quick")

        for number in range(1500):
            await slow.cast("note", number=number, pause=0.01)
        began = time.monotonic()
        for _ in range(200):
            await quick.call("who")
        assert time.monotonic() - began < 2
        assert machine.status()["places"]["Orpclib/slow/"]["waiting"] > 500, "the slow topic is still busy"
        worker.kill()


async def test_a_stopped_subscriber_does_not_hold_up_fanouts(machine: Machine) -> None:
    machine.worker("t", "a")
    stopped = machine.worker("t", "b")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=30)
        await client.call("who")
        os.kill(stopped.pid, signal.SIGSTOP)
        for number in range(1500):
            await client.fanout("note", number=number)
        while len(await client.to("a").call("notes")) < 1500:
            await asyncio.sleep(0.02)
        assert await client.to("a").call("notes") == list(range(1500))
        os.kill(stopped.pid, signal.SIGCONT)
        await machine.until(
            lambda: not any(session["stalled"] for session in machine.status()["sessions"]), "the end of the stall"
        )
        missed = machine.status()["events"].get("missed", 0)
        while len(notes := await client.to("b").call("notes")) < 1500 - missed:
            await asyncio.sleep(0.02)
        assert notes == sorted(set(notes))
        assert len(notes) == 1500 - missed


async def test_expired_calls_leave_the_queues(machine: Machine) -> None:
    worker = machine.worker("t", "a", workers=1)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=10)
        await client.call("who")
        os.kill(worker.pid, signal.SIGSTOP)
        calls = [client.prepare(timeout=0.3).call("note", number=number) for number in range(50)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {rpclib.CallTimeout}
        await machine.until(lambda: machine.status()["held_bytes"] == 0, "their expiry")
        assert machine.status()["events"]["expired"] > 40
        os.kill(worker.pid, signal.SIGCONT)
        assert await client.call("notes") == []


async def test_thousands_of_subscriptions_at_once(machine: Machine) -> None:
    """What one loop turn asks for may be more than fits one batch."""
    async with rpclib.connect(machine.url) as rpc:
        driver = inside(rpc).connection.driver
        assert driver is not None
        addresses = [rpclib.Target(f"{number:080}", server="s" * 100).one() for number in range(6000)]
        subscribed = [driver.subscribe(address, prefetch=1, arrived=lambda: None) for address in addresses]
        subscriptions = await asyncio.gather(*subscribed)
        assert len({subscription.address for subscription in subscriptions}) == 6000
        assert await driver.subscribers(addresses[-1]) == 1
