"""Speed without a clock: the work that a call and a cast cost is counted and held to benchmarks/budget.toml.

Both ends run on one loop, so what is counted is the work of client and server together. The loop's clock stands
still: no timer fires, and in memory every run counts the same. Over sockets the counts differ a little with how
many messages arrive at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tomllib
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import rpclib
from rpclib.driver import Driver, Route
from rpclib_amqp import AmqpDriver
from rpclib_fake import FakeDriver
from rpclib_zmq import ZmqDriver

ROOT = Path(__file__).parents[1]
BUDGET: dict[str, dict[str, dict[str, float]]] = tomllib.loads((ROOT / "benchmarks" / "budget.toml").read_text())
IN_FLIGHT = 64
EACH = 20
"""Operations that each of the callers makes while they are counted."""

Operation = Callable[[rpclib.Client], Awaitable[object]]
OPERATIONS: dict[str, Operation] = {
    "call": lambda client: client.call("echo", value=1),
    "cast": lambda client: client.cast("echo", value=1),
}


DRIVERS: dict[str, type[Driver]] = {"fake": FakeDriver, "amqp": AmqpDriver, "zmq": ZmqDriver}


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        for name, kind in _COUNTED.items():
            setattr(self, name, self._counting(kind, getattr(self, name)))

    def time(self) -> float:
        return 1.0

    def _counting(self, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **options: Any) -> Any:
            self.counts[kind] += 1
            return method(*args, **options)

        return counting


_COUNTED = {
    "create_task": "tasks",
    "create_future": "futures",
    "call_soon": "callbacks",
    "call_soon_threadsafe": "callbacks",
    "call_at": "timers",
}


def counting(driver: type[Driver]) -> type[Driver]:
    """The driver, counting what is sent."""

    def send(self: Driver, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        loop.counts["sends"] += 1
        driver.send(self, route, body, ttl, tag)

    return type(f"Counting{driver.__name__}", (driver,), {"send": send})


class Echo:
    def __init__(self) -> None:
        self._ran = 0
        self._done = asyncio.Event()

    @rpclib.expose
    async def echo(self, value: int) -> int:
        self._ran += 1
        if self._ran == IN_FLIGHT * EACH:
            self._done.set()
        return value

    async def done(self) -> None:
        """Return when all operations of a turn ran."""
        await self._done.wait()
        self._done.clear()
        self._ran = 0


def count(operation: Operation, url: str = "fake://budget") -> dict[str, float]:
    """The work of one operation, by kind, averaged over many."""
    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_count(loop, operation, url))


async def _count(loop: CountingLoop, operation: Operation, url: str) -> dict[str, float]:
    echo, start = Echo(), asyncio.Event()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        loop.counts["functions"] += event == "call" and frame.f_globals["__name__"] != __name__

    async def caller(client: rpclib.Client) -> None:
        await start.wait()
        for _ in range(EACH):
            await operation(client)

    async def turn(client: rpclib.Client) -> None:
        start.clear()
        callers = [loop.create_task(caller(client)) for _ in range(IN_FLIGHT)]
        await asyncio.sleep(0)
        loop.counts.clear()
        start.set()
        await asyncio.wait(callers)
        await echo.done()

    async with rpclib.connect(url, driver=counting(DRIVERS[url.partition(":")[0]])) as rpc:
        topic = f"budget-{uuid.uuid4().hex}"  # a broker may be shared
        async with rpc.server(topic, [echo]):
            client = rpc.client(topic)
            await turn(client)  # what happens once only is over
            gc.collect()
            gc.disable()  # what it would run are others' finalizers and callbacks
            sys.setprofile(profile)
            try:
                await turn(client)
            finally:
                sys.setprofile(None)
                gc.enable()
            return {kind: number / (IN_FLIGHT * EACH) for kind, number in loop.counts.items()}


def excess(counts: dict[str, float], budget: dict[str, float]) -> list[str]:
    """What is over budget, in words."""
    return [
        f"{counts[kind]:.2f} {kind} instead of at most {limit:g}"
        for kind, limit in budget.items()
        if counts.get(kind, 0) > limit
    ]


@pytest.fixture
def fake_url() -> str:
    return "fake://budget"


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("scheme", DRIVERS)
def test_an_operation_costs_no_more_work_than_budgeted(
    scheme: str, name: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{scheme}_url")
    assert not excess(count(OPERATIONS[name], url), BUDGET[scheme][name])


def test_counting_is_exact() -> None:
    assert count(OPERATIONS["call"]) == count(OPERATIONS["call"])


def test_a_task_for_each_call_is_over_budget() -> None:
    async def in_a_task(client: rpclib.Client) -> None:
        await asyncio.get_running_loop().create_task(OPERATIONS["call"](client))  # type: ignore[arg-type]

    found = excess(count(in_a_task), BUDGET["fake"]["call"])
    assert any("tasks" in line for line in found)
    assert any("callbacks" in line for line in found)


def test_a_timer_for_each_call_is_over_budget() -> None:
    async def with_a_timer(client: rpclib.Client) -> None:
        async with asyncio.timeout(10):
            await client.call("echo", value=1)

    assert any("timers" in line for line in excess(count(with_a_timer), BUDGET["fake"]["call"]))


def test_another_message_for_each_cast_is_over_budget() -> None:
    async def twice(client: rpclib.Client) -> None:
        await client.cast("echo", value=1)
        await client.fanout("none", value=1)

    assert any("sends" in line for line in excess(count(twice), BUDGET["fake"]["cast"]))


def benchmark_command(folder: Path, *, peers: str, work: str, rounds: int) -> list[str]:
    command = [sys.executable, "-m", "benchmarks", "--rounds", str(rounds), "--seconds", "0.01"]
    return [*command, "--out", str(folder), "--peers", peers, "--work", work]


def benchmark_environment(folder: Path) -> dict[str, str]:
    """With the benchmark, of all that is in the project, importable."""
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return {**environment, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def benchmark(folder: Path, *, peers: str, work: str, rounds: int) -> tuple[dict[str, Any], str]:
    """Run the benchmark as a user does; its results, and what it printed."""
    done = subprocess.run(
        benchmark_command(folder, peers=peers, work=work, rounds=rounds),
        env=benchmark_environment(folder),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((folder / "results.json").read_text())
    assert not found["failed"]
    return found, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_apart_an_operation_costs_no_more_than_budgeted(tmp_path: Path) -> None:
    peers = {scheme: f"rpclib {scheme}" for scheme, budget in BUDGET.items() if "apart" in budget}
    found, _ = benchmark(tmp_path, peers=",".join(peers.values()), work="system-calls-1,in-flight", rounds=1)
    assert not found["missing"]
    for scheme, peer in peers.items():
        counts = {
            kind: found["work"][key]["peers"][peer]["figure"]["median"]
            for kind, key in (("system_calls", "system-calls-1"), ("bytes", "in-flight"))
        }
        assert all(counts.values())
        assert not excess(counts, BUDGET[scheme]["apart"]), peer


@pytest.mark.slow
def test_an_interrupted_run_reports_what_it_has(tmp_path: Path) -> None:
    command = benchmark_command(tmp_path, peers="rpclib fake", work="latency,calls-8,calls-64,casts", rounds=40)
    with subprocess.Popen(command, env=benchmark_environment(tmp_path), stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("calls, one at a time"):
                break
        run.send_signal(signal.SIGINT)
        printed = run.stdout.read()
    assert run.returncode == 128 + signal.SIGINT
    assert "interrupted: this is what had been measured" in printed
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["interrupted"]
    assert len(found["work"]["latency"]["peers"]["rpclib fake"]["samples"]) == 40
    assert not found["work"]["casts"]["peers"]


@pytest.mark.slow
def test_the_benchmark_runs_and_names_who_is_missing(tmp_path: Path) -> None:
    found, printed = benchmark(
        tmp_path, peers="rpclib fake, rpclib fake sync, zerorpc", work="latency, calls-8, casts", rounds=2
    )
    assert found["missing"] == {"zerorpc": "zerorpc is not installed"}
    assert "missing: zerorpc (zerorpc is not installed)" in printed
    for key in ("latency", "calls-8", "casts"):
        peers = found["work"][key]["peers"]
        assert set(peers) == {"rpclib fake", "rpclib fake sync"}
        assert all(len(peer["samples"]) == 2 for peer in peers.values())
        assert all(peer["figure"]["median"] > 0 for peer in peers.values())
