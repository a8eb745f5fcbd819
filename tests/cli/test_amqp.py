"""Commands that meet through a broker: every side is a process of its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from rpclib.cli.demo import demo as demos

from .conftest import Process, Start

pytestmark = pytest.mark.timeout(120)

SERVICE = """
import asyncio, os
import rpclib

class Service:
    @rpclib.expose
    async def pid(self) -> int:
        return os.getpid()

    @rpclib.expose
    async def fail(self):
        raise LookupError("no such thing")

    @rpclib.expose
    async def hang(self):
        print("hanging", flush=True)
        await asyncio.sleep(1000)

    @rpclib.expose
    async def note(self, text: str):
        print("noted", text, flush=True)
"""


@pytest.fixture
def configured(place: Path, amqp_url: str, exchange: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configuration and the service module of the test."""
    (place / "service.py").write_text(SERVICE)
    monkeypatch.setenv("RPCLIB_EXCHANGE", exchange)
    monkeypatch.setenv("RPCLIB_URL", amqp_url)
    return amqp_url


def serve(start: Start, *arguments: str, count: int = 1) -> Process:
    process = start("run", "service:Service", "--topic", "svc", *arguments)
    for _ in range(count):
        process.until("serving svc")
    return process


@pytest.mark.usefixtures("configured")
def test_a_call_reaches_a_server_of_another_process(start: Start) -> None:
    server = serve(start, "--server", "one")
    call = start("call", "svc.one", "pid", "--json")
    assert call.finish() == 0
    assert json.loads(call.output) == {"result": server.popen.pid}


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["svc", "fail"], 1, "error: builtins.LookupError: no such thing"),
        (["svc", "hang", "--timeout", "0.3"], 3, "error: "),
        (["nobody", "pid"], 4, "error: nobody serves"),
    ],
)
def test_exit_codes(start: Start, arguments: list[str], code: int, text: str) -> None:
    serve(start)
    call = start("call", *arguments)
    assert call.finish() == code
    assert call.output.startswith(text)


@pytest.mark.usefixtures("configured")
def test_a_wrong_password_is_exit_code_5_and_is_not_shown(start: Start, configured: str) -> None:
    call = start("call", "-u", configured.replace(":p", ":wrong-p"), "svc", "pid")
    assert call.finish() == 5
    assert "wrong-p" not in call.output


@pytest.mark.usefixtures("configured")
def test_casts_and_fanouts_arrive(start: Start) -> None:
    servers = [serve(start, "--server", name) for name in ("one", "two")]
    assert start("cast", "svc.two", "note", "text=to two").finish() == 0
    servers[1].until("noted to two")
    assert start("fanout", "svc", "note", "text=to all").finish() == 0
    for server in servers:
        server.until("noted to all")


@pytest.mark.usefixtures("configured")
def test_ctrl_c_ends_a_call_in_flight(start: Start) -> None:
    server = serve(start)
    call = start("call", "svc", "hang")
    server.until("hanging")
    call.signal(signal.SIGINT)
    assert call.finish() == 130
    assert "Traceback" not in call.output


@pytest.mark.usefixtures("configured")
def test_processes_share_the_work_and_one_that_was_killed_comes_back(start: Start) -> None:
    server = serve(start, "--processes", "2", count=2)

    def asked() -> set[int]:
        found: set[int] = set()
        while len(found) < 2:
            call = start("call", "svc", "pid")
            assert call.finish() == 0, call.output
            found.add(int(call.output))
        return found

    before = asked()
    os.kill(min(before), signal.SIGKILL)
    server.until("starting it again")
    server.until("serving svc")
    after = asked()
    assert len(before & after) == 1
    server.signal(signal.SIGTERM)
    assert server.finish() == 0
    assert start("call", "svc", "pid", "--timeout", "20").finish() == 4


@pytest.mark.usefixtures("configured")
def test_the_demo_is_the_same_on_a_broker(start: Start, configured: str, exchange: str) -> None:
    demo = start("demo", "--url", configured, "--exchange", exchange)
    assert demo.finish() == 0, demo.output
    for step in demos.STEPS:
        assert f"   > {step}\n" in demo.output
