"""How work is shared, and what happens when a worker or the receiver stops, hangs or dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import rpclib
from rpclib.testing.inside import inside

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine


async def test_equal_workers_share_calls_evenly(machine: Machine) -> None:
    for name in "abcd":
        machine.worker("t", name)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t")
        served = Counter([await client.call("who") for _ in range(1000)])
        assert all(225 <= count <= 275 for count in served.values()), served


async def test_a_busy_worker_is_passed_over(machine: Machine) -> None:
    machine.worker("t", "a")
    machine.worker("t", "b")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t")
        busy = [asyncio.create_task(client.to("a").call("sleep", seconds=2)) for _ in range(2)]
        await machine.until(lambda: len(inside(rpc).calls.table) == 2, "calls in flight")
        assert {await client.call("who") for _ in range(20)} == {"b"}
        assert await asyncio.gather(*busy) == ["a", "a"]


async def test_a_directed_call_never_falls_back(machine: Machine) -> None:
    machine.worker("t", "a")
    gone = machine.worker("t", "b")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", route_grace=0.2)
        assert await client.to("b").call("who") == "b"
        gone.terminate()
        gone.wait(20)
        with pytest.raises(rpclib.NoServer):
            await client.to("b").call("who")
        assert await client.call("who") == "a"


async def test_a_killed_worker_is_told_within_a_tenth_of_a_second(machine: Machine) -> None:
    worker = machine.worker("t", "a")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t")
        call = asyncio.create_task(client.call("sleep", seconds=60))
        await machine.until(lambda: machine.status()["sessions"][0]["unanswered"] == 1, "the call at the worker")
        worker.kill()
        began = time.monotonic()
        with pytest.raises(rpclib.WorkerLost) as lost:
            await call
        assert time.monotonic() - began < 0.1
        assert lost.value.maybe_executed


async def test_what_a_killed_worker_had_not_taken_is_not_lost(machine: Machine) -> None:
    """Calls of an idempotent kind that waited in the killed process run elsewhere; others say WorkerLost."""
    victim = machine.worker("t", "a", workers=1)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t")
        first = asyncio.create_task(client.call("sleep", seconds=60))
        await machine.until(lambda: machine.status()["sessions"][0]["unanswered"] == 1, "the call at the worker")
        waiting = [asyncio.create_task(client.call("again")) for _ in range(3)]
        await machine.until(lambda: machine.status()["sessions"][0]["unanswered"] == 2, "a prefetched call")
        machine.worker("t", "b")
        victim.kill()
        with pytest.raises(rpclib.WorkerLost):
            await first
        assert await asyncio.gather(*waiting) == ["b", "b", "b"]


async def test_a_stopped_worker_gets_no_new_work(machine: Machine) -> None:
    machine.worker("t", "a")
    stopped = machine.worker("t", "b")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t")
        os.kill(stopped.pid, signal.SIGSTOP)
        await machine.until(
            lambda: any(session["stalled"] for session in machine.status()["sessions"]), "the stall to be noticed"
        )
        assert {await client.call("who") for _ in range(50)} == {"a"}
        os.kill(stopped.pid, signal.SIGCONT)
        await machine.until(
            lambda: not any(session["stalled"] for session in machine.status()["sessions"]), "the end of the stall"
        )
        assert {await client.call("who") for _ in range(50)} == {"a", "b"}


async def test_a_handler_that_holds_the_gil_is_not_declared_dead(machine: Machine) -> None:
    machine.worker("t", "a")
    async with rpclib.connect(machine.url) as rpc:
        assert await rpc.client("t").call("hold_gil", seconds=6) == "a"
        assert await rpc.client("t").call("who") == "a"


async def test_every_call_ends_when_the_receiver_is_killed_under_load(machine: Machine) -> None:
    for name in "ab":
        machine.worker("t", name)
    outcomes: Counter[str] = Counter()
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=10)
        killed = asyncio.Event()

        async def caller() -> None:
            for _ in range(100):
                if sum(outcomes.values()) == 500 and not killed.is_set():
                    killed.set()
                    os.kill(receiver, signal.SIGKILL)
                try:
                    await client.call("who")
                    outcomes["result"] += 1
                except rpclib.RpcError as error:
                    outcomes[type(error).__name__] += 1

        receiver = machine.receiver_pid()
        await asyncio.gather(*(caller() for _ in range(20)))
    assert sum(outcomes.values()) == 2000
    assert outcomes["result"] >= 1900
    assert set(outcomes) <= {"result", "ConnectionLost", "NoServer"}, outcomes


async def test_rolling_restart_shows_no_error(machine: Machine) -> None:
    workers = [machine.worker("t", name) for name in "abc"]
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=10)
        stop, calls = asyncio.Event(), 0

        async def load() -> None:
            nonlocal calls
            async with asyncio.TaskGroup() as group:
                while not stop.is_set():
                    calls += 1
                    group.create_task(client.call("sleep", seconds=0.05))
                    await asyncio.sleep(0.01)

        loading = asyncio.create_task(load())
        for old, name in zip(workers, "abc", strict=True):
            old.terminate()
            assert await asyncio.to_thread(old.wait, 20) == 0
            await asyncio.to_thread(machine.worker, "t", name)
        stop.set()
        await loading
        assert calls > 50


def test_a_forked_child_may_connect_and_leaves_its_parent_alone(machine: Machine) -> None:
    machine.worker("t", "a")
    with rpclib.sync.connect(machine.url) as rpc:
        client = rpc.client("t")
        assert client.call("who") == "a"
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if client.call("who") == "a" else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert client.call("who") == "a"


async def test_a_stopped_receiver_finishes_what_runs(machine: Machine) -> None:
    machine.worker("t", "a")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=10)
        call = asyncio.create_task(client.call("sleep", seconds=1))
        pid = machine.receiver_pid()
        await machine.until(lambda: machine.status()["sessions"][0]["unanswered"] == 1, "the call at the worker")
        os.kill(pid, signal.SIGTERM)
        assert await call == "a"
        assert await client.call("who") == "a"
        assert machine.receiver_pid() != pid


async def test_calls_go_on_while_the_receiver_is_restarted(machine: Machine) -> None:
    """Calls under way finish, new ones wait for the next receiver: none fails."""
    machine.worker("t", "a")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=20)
        stop, calls = asyncio.Event(), 0

        async def caller() -> None:
            nonlocal calls
            while not stop.is_set():
                await client.call("sleep", seconds=0.02)
                calls += 1

        callers = [asyncio.create_task(caller()) for _ in range(10)]
        for _ in range(3):
            pid = machine.receiver_pid()
            enough = calls + 50
            await machine.until(lambda: not any(call.resends for call in inside(rpc).calls.table.values()), "calm")
            os.kill(pid, signal.SIGTERM)
            while calls < enough:
                await asyncio.sleep(0.01)
            assert machine.receiver_pid() != pid
        stop.set()
        await asyncio.gather(*callers)


async def test_casts_outlive_a_stopped_receiver(machine: Machine) -> None:
    """It leaves when its sessions have sent what they hold and workers have taken what it was given."""
    machine.worker("t", "a", workers=1)
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=30)
        pid = machine.receiver_pid()
        for number in range(1500):
            await client.cast("note", number=number, pause=0.001)
        os.kill(pid, signal.SIGTERM)
        while len(notes := await client.call("notes")) < 1500:
            await asyncio.sleep(0.02)
        assert notes == list(range(1500))
        await machine.until(lambda: machine.status().get("pid", pid) != pid, "the next receiver")
