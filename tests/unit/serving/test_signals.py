"""Serving until a signal comes, in a process of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import rpclib
from tests.support.scripted import scripted, until


class Idle:
    @rpclib.expose
    async def nothing(self) -> None: ...


PROGRAM = """
import asyncio, sys, rpclib

class Service:
    @rpclib.expose
    async def wait(self):
        print("running", flush=True)
        try:
            await asyncio.sleep(float(sys.argv[1]))
        finally:
            print("left", flush=True)
        return "done"

async def main():
    async with rpclib.connect("fake://", grace=30) as rpc:
        server = rpc.server("t", [Service()])
        call = asyncio.ensure_future(rpc.client("t").call("wait"))
        await server.serve_forever()
        print("answer:", (await asyncio.gather(call, return_exceptions=True))[0].__class__.__name__, flush=True)

def blocking():
    with rpclib.sync.connect("fake://", grace=30) as rpc:
        server = rpc.server("t", [Service()])
        import threading
        answers = []
        def call():
            try:
                answers.append(rpc.client("t").call("wait"))
            except rpclib.RpcError as error:
                answers.append(error)
        thread = threading.Thread(target=call)
        thread.start()
        server.serve_forever()
        thread.join()
        print("answer:", answers[0].__class__.__name__, flush=True)

asyncio.run(main()) if sys.argv[2] == "async" else blocking()
print("end", flush=True)
"""


class Process:
    def __init__(self, seconds: float, api: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(seconds), api],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture(params=["async", "sync"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def started(api: str) -> Iterator[list[Process]]:
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for one in processes:
            one.process.kill()
            one.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_gracefully(number: int, api: str, started: list[Process]) -> None:
    started.append(process := Process(0.2, api))
    assert process.line() == "running"
    process.process.send_signal(number)
    assert process.end() == (0, "left\nanswer: str\nend\n", "")


def test_a_second_signal_stops_at_once(api: str, started: list[Process]) -> None:
    started.append(process := Process(60, api))
    assert process.line() == "running"
    process.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.process.wait(0.3)
    process.process.send_signal(signal.SIGINT)
    code, out, err = process.end()
    assert (code, out) == (0, "left\nanswer: WorkerLost\nend\n")
    assert "1 requests outlived the grace" in err


async def test_serving_forever_ends_when_somebody_stops_the_server() -> None:
    driver = scripted()
    before = signal.getsignal(signal.SIGTERM)
    async with rpclib.connect("x://h", driver=driver) as rpc:
        server = rpc.server("t", [Idle()])
        serving = asyncio.create_task(server.serve_forever())
        await until(lambda: len(driver.world.subscribed) == 4)
        await server.stop()
        await asyncio.wait_for(serving, 5)
    assert signal.getsignal(signal.SIGTERM) == before
