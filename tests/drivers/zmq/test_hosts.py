"""Several machines, each a run directory and a loopback address of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rpclib
from rpclib.testing.inside import inside

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

Pair = tuple["Machine", "Machine"]


def linked(*machines: Machine) -> bool:
    """Whether each has a link to each other."""
    return all(len(machine.status().get("links", ())) == len(machines) - 1 for machine in machines)


def knows(machine: Machine, name: str, takers: int) -> bool:
    return bool(machine.status()["places"].get(name, {"takers": 0})["takers"] == takers)


@pytest.fixture
def pair(machines: Callable[[], Machine], addresses: Callable[[], str]) -> Pair:
    """Two machines; both connect to each other."""
    a, b = machines(), machines()
    at_a, at_b = addresses(), addresses()
    a.receiver("--listen", at_a, "--peers", at_b)
    b.receiver("--listen", at_b, "--peers", at_a)
    a.wait_for(lambda: linked(a, b), "the link")
    return a, b


async def test_calls_casts_and_fanouts_cross(pair: Pair) -> None:
    a, b = pair
    b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:
        client = rpc.client("t", timeout=10)
        assert await client.call("who") == "b", "in effect on the other machine at once"
        assert await client.to("b").call("who") == "b"
        for number in range(300):
            await client.cast("note", number=number)
        await a.until(lambda: b.status()["held_bytes"] == 0, "the casts")
        while len(notes := await client.call("notes")) < 300:
            await asyncio.sleep(0.01)
        assert sorted(notes) == list(range(300))
        with pytest.raises(rpclib.NoServer):
            await client.prepare(route_grace=0.1).to("a").call("who")


async def test_large_bodies_cross(pair: Pair) -> None:
    a, b = pair
    b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:
        body = os.urandom(3_000_000)
        assert await rpc.client("t", timeout=20).call("echo", value=body) == body


async def test_work_is_shared_over_machines(pair: Pair) -> None:
    a, b = pair
    a.worker("t", "a1")
    b.worker("t", "b1")
    b.worker("t", "b2")
    a.wait_for(lambda: knows(a, "Orpclib/t/", 3), "the workers")
    async with rpclib.connect(a.url) as rpc:
        client = rpc.client("t", timeout=20)
        served = Counter([await client.call("who") for _ in range(999)])
        assert all(300 <= count <= 366 for count in served.values()), served


async def test_fanout_reaches_every_server_once(
    machines: Callable[[], Machine], addresses: Callable[[], str]
) -> None:
    hosts, listen = [machines() for _ in range(3)], [addresses() for _ in range(3)]
    for host, own in zip(hosts, listen, strict=True):
        host.receiver("--listen", own, "--peers", ",".join(set(listen) - {own}))
    hosts[0].wait_for(lambda: linked(*hosts), "the links")
    names = []
    for number, host in enumerate(hosts):
        for letter in "xy":
            names.append(f"{number}{letter}")
            host.worker("t", names[-1])
    async with rpclib.connect(hosts[0].url) as rpc:
        client = rpc.client("t", timeout=10)
        for number in range(100):
            await client.fanout("note", number=number)
        for name in names:
            while len(notes := await client.to(name).call("notes")) < 100:
                await asyncio.sleep(0.01)
            assert notes == list(range(100)), name


async def test_presence_counts_all_machines(pair: Pair) -> None:
    a, b = pair
    a.worker("t", "x")
    gone = b.worker("t", "x")
    async with rpclib.connect(a.url) as rpc:
        driver = inside(rpc).connection.driver
        assert driver is not None
        assert await driver.subscribers(rpclib.Target("t").one()) == 2
        gone.terminate()
        gone.wait(20)
        began = time.monotonic()
        while await driver.subscribers(rpclib.Target("t").one()) != 1:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 1


async def test_a_worker_killed_on_another_machine_is_told(pair: Pair) -> None:
    a, b = pair
    worker = b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:
        call = asyncio.create_task(rpc.client("t").call("sleep", seconds=60))
        await a.until(lambda: b.status()["sessions"][0]["unanswered"] == 1, "the call at the worker")
        worker.kill()
        began = time.monotonic()
        with pytest.raises(rpclib.WorkerLost):
            await call
        assert time.monotonic() - began < 0.5


async def test_a_lost_link_ends_calls_and_comes_back(pair: Pair) -> None:
    a, b = pair
    worker = b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:
        client = rpc.client("t", timeout=20)
        call = asyncio.create_task(client.call("sleep", seconds=60))
        await a.until(lambda: b.status()["sessions"][0]["unanswered"] == 1, "the call at the worker")
        os.kill(b.receiver_pid(), signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(rpclib.WorkerLost):
            await call
        assert time.monotonic() - began < 4.5
        with pytest.raises(rpclib.NoServer):
            await client.prepare(route_grace=0.1).call("who")
        pid = int((b.path / "receiver.lock").read_text())
        os.kill(pid, signal.SIGCONT)
        await a.until(lambda: linked(a, b), "the link")
        assert await client.prepare(route_grace=10).call("who") == "b"
        assert worker.poll() is None


async def test_one_way_reachability_is_enough(
    machines: Callable[[], Machine], addresses: Callable[[], str]
) -> None:
    a, b, at_b = machines(), machines(), addresses()
    b.receiver("--listen", at_b)
    a.receiver("--peers", at_b)
    a.worker("ta", "a")
    b.worker("tb", "b")
    a.wait_for(lambda: linked(a, b), "the link")
    async with rpclib.connect(a.url) as from_a, rpclib.connect(b.url) as from_b:
        assert await from_a.client("tb", route_grace=5).call("who") == "b"
        assert await from_b.client("ta", route_grace=5).call("who") == "a"


async def test_a_receiver_started_on_demand_listens_too(
    machines: Callable[[], Machine], addresses: Callable[[], str]
) -> None:
    a, b, at_b = machines(), machines(), addresses()
    b.worker("t", "b", url=f"{b.url}?listen={at_b}")
    async with rpclib.connect(f"{a.url}?peers={at_b}") as rpc:
        assert await rpc.client("t", route_grace=5).call("who") == "b"
    with pytest.raises(rpclib.Unreachable, match="listens on"):
        async with rpclib.connect(f"{b.url}?listen=127.0.0.1:1", connect_timeout=1):
            pass


async def test_the_file_matchmaker_is_read_again(
    machines: Callable[[], Machine],
    addresses: Callable[[], str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []

    def failed() -> bool:
        said.append(capfd.readouterr().err)
        return "the matchmaker fails" in "".join(said)

    a, b, at_a, at_b = machines(), machines(), addresses(), addresses()
    ring = tmp_path / "ring"
    ring.write_text(f"{at_a}  # this machine itself\n")
    a.receiver("--listen", at_a, "--matchmaker", f"file:{ring}")
    b.receiver("--listen", at_b)
    ring.write_text(f"{at_a}\n{at_b}\n")
    a.wait_for(lambda: linked(a, b), "the link")
    ring.unlink()
    a.wait_for(failed, "the failure of the matchmaker")
    assert linked(a, b), "a store that is lost stops nothing"
    ring.write_text(f"{at_a}\n")
    a.wait_for(lambda: linked(a) and linked(b), "the end of the link")


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_the_redis_matchmaker(
    machines: Callable[[], Machine], addresses: Callable[[], str], tmp_path: Path
) -> None:
    a, b, at_a, at_b = machines(), machines(), addresses(), addresses()
    port = int(addresses().rpartition(":")[2])
    option = f"redis://127.0.0.1:{port}/0"
    a.receiver("--listen", at_a, "--matchmaker", option)  # the store is not there yet
    with redis_server(tmp_path, port):
        b.receiver("--listen", at_b, "--matchmaker", option)
        a.wait_for(lambda: linked(a, b), "the link")
        b.worker("t", "b")
    async with rpclib.connect(a.url) as rpc:  # the store is gone again
        assert await rpc.client("t", route_grace=5).call("who") == "b"
