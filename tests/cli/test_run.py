"""``rpclib run``: real processes, real signals."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from rpclib.cli.run.loading import endpoint
from rpclib.errors import ConfigError

from .conftest import Start

SERVICE = """
import asyncio, atexit, os, threading, time
import rpclib

class Service:
    def __init__(self):
        print("made", os.getpid(), flush=True)

    @rpclib.expose(idempotent=True)
    async def hello(self, name: str = "you") -> str:
        return name

    @rpclib.expose
    async def work(self, seconds: float):
        print("working", flush=True)
        await asyncio.sleep(seconds)
        print("finished", flush=True)
        return "done"

    @rpclib.expose
    def block(self):
        print("working", flush=True)
        time.sleep(1000)

    @rpclib.expose
    async def freeze(self):
        print("working", flush=True)
        time.sleep(1000)

def busy(method, **arguments):
    '''A service that is called at once, by a client in its own process.'''
    def call():
        with rpclib.sync.connect(os.environ["RPCLIB_URL"]) as rpc:
            try:
                print("answer", rpc.client("busy").call(method, **arguments), flush=True)
            except rpclib.RpcError as error:
                print("answer", error.code, flush=True)
    thread = threading.Thread(target=call, daemon=True)
    atexit.register(thread.join)
    thread.start()
    return Service()

def short():
    return busy("work", seconds=0.5)

def long():
    return busy("work", seconds=1000)

def stuck():
    return busy("block")

def frozen():
    return busy("freeze")

instance = Service()
"""


@pytest.fixture
def service(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RPCLIB_URL", "fake://run")
    path = place / "service.py"
    path.write_text(SERVICE)
    return path


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_serves_and_stops_on_a_signal(start: Start, number: int) -> None:
    process = start("run", "service:Service", "--topic", "compute", "--server", "phantom", "--workers", "7")
    process.until("serving compute.phantom on fake://run, exchange rpclib")
    process.until("ready: up to 7 requests at a time")
    assert "  hello(name: str = 'you') -> str   1.0, idempotent\n" in process.lines
    assert "  + a call whose server dies fails at once\n" in process.lines
    assert "  - reached from the same process only\n" in process.lines
    process.signal(number)
    assert process.finish() == 0
    assert "stopped serving compute.phantom" in process.output


@pytest.mark.usefixtures("service")
def test_a_running_request_is_answered_before_it_stops(start: Start) -> None:
    process = start("run", "service:short", "--topic", "busy")
    process.until("working", "ready")
    process.signal(signal.SIGTERM)
    assert process.finish() == 0
    assert "answer done" in process.output


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("name", ["long", "stuck"])
def test_a_second_signal_stops_at_once(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("RPCLIB_GRACE", "1000")
    process = start("run", f"service:{name}", "--topic", "busy")
    process.until("working", "ready")
    process.signal(signal.SIGTERM, signal.SIGINT)
    assert process.finish() == 0


@pytest.mark.usefixtures("service")
def test_a_crashed_process_is_started_again_and_all_stop_together(start: Start) -> None:
    process = start("run", "service:Service", "--topic", "compute", "-u", "across://", "--processes", "2")
    first = int(process.until("made").split()[1])
    process.until("serving compute")
    process.until("serving compute")
    os.kill(first, signal.SIGKILL)
    process.until("ended with code -9; starting it again")
    process.until("serving compute")
    process.signal(signal.SIGTERM)
    assert process.finish() == 0
    made = {int(pid) for pid in re.findall(r"made (\d+)", process.output)}
    assert len(made) == 3
    for pid in made:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.usefixtures("service")
def test_ctrl_c_reaches_children_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal signals the whole process group; a child that saw two signals would drop its request."""
    monkeypatch.setenv("RPCLIB_URL", "across://")
    process = start("run", "service:short", "--topic", "busy", "--processes", "2")
    process.until("working")
    process.until("working")
    os.killpg(process.popen.pid, signal.SIGINT)
    assert process.finish() == 0
    assert process.output.count("finished") == 2


@pytest.mark.usefixtures("service")
def test_a_second_signal_ends_children_that_do_not_listen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_URL", "across://")
    process = start("run", "service:frozen", "--topic", "busy", "--processes", "2")
    process.until("working")
    process.until("working")
    process.signal(signal.SIGTERM, signal.SIGINT)
    assert process.finish() == 0


@pytest.mark.usefixtures("service")
def test_children_end_when_their_parent_is_killed(start: Start) -> None:
    process = start("run", "service:Service", "--topic", "compute", "-u", "across://", "--processes", "2")
    process.until("serving compute")
    process.until("serving compute")
    process.signal(signal.SIGKILL)
    assert process.finish() == -signal.SIGKILL
    assert process.output.count("stopped serving") == 2


@pytest.mark.usefixtures("service")
def test_what_cannot_work_is_not_started_again(start: Start, service: Path) -> None:
    service.write_text("1 / 0\n")
    process = start("run", "service:Service", "--topic", "compute", "-u", "across://", "--processes", "2")
    assert process.finish() == 2
    assert "starting it again" not in process.output
    assert f"importing service raised ZeroDivisionError: division by zero ({service}, line 1)" in process.output


@pytest.mark.usefixtures("service")
def test_several_processes_need_a_backend_that_reaches_them(start: Start) -> None:
    process = start("run", "service:Service", "--topic", "compute", "--processes", "2")
    assert process.finish() == 2
    assert process.output.startswith("error: fake:// does not reach other processes")


@pytest.mark.usefixtures("service")
def test_no_connection_is_exit_code_5(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_CONNECT_TIMEOUT", "0.2")
    process = start("run", "service:Service", "--topic", "compute", "-u", "away://")
    assert process.finish() == 5
    assert "nobody home" in process.output


def test_a_changed_file_starts_it_again_and_a_broken_one_does_not_end_it(start: Start, service: Path) -> None:
    def write(text: str) -> None:
        service.write_text(text)
        os.utime(service, ns=(next(times), next(times)))  # the clock of the file system may be coarse

    times = iter(range(10**18, 2 * 10**18, 10**17))
    process = start("run", "service:Service", "--topic", "compute", "--reload")
    process.until("ready")
    write(SERVICE.replace("hello", "hallo"))
    process.until("service.py changed: starting again")
    process.until("hallo(name")
    process.until("ready")
    write("class Service(\n")
    process.until("importing service raised SyntaxError: '(' was never closed")
    process.until("waiting for a change")
    write(SERVICE.replace("hello", "salut"))
    process.until("salut(name")
    process.until("ready")
    write("class Services: pass")
    process.until('has no "Service"; did you mean "Services"?')
    process.until("waiting for a change")
    process.signal(signal.SIGKILL)  # the waiting child ends with its parent
    assert process.finish() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("service", "not of the form MODULE:CLASS"),
        ("absent:Service", 'there is no module "absent"'),
        ("package.absent:Service", 'there is no module "package"'),
        ("service:Servic", 'has no "Servic"; did you mean "Service"?'),
        ("service:busy", "cannot be called without arguments"),
        ("needy:Service", "importing needy raised ModuleNotFoundError: No module named 'nosuch'"),
        ("raising:make", "calling raising:make raised ValueError: no luck"),
    ],
)
def test_an_endpoint_that_cannot_be_made_is_a_readable_error(
    service: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    (service.parent / "needy.py").write_text("import nosuch\n")
    (service.parent / "raising.py").write_text("def make():\n    raise ValueError('no luck')\n")
    fresh(monkeypatch)
    with pytest.raises(ConfigError) as caught:
        endpoint(name)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["service:Service", "service:instance", "service:make"])
def test_a_class_a_function_and_an_instance_make_an_endpoint(
    service: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    service.write_text(SERVICE + "\ndef make():\n    return Service()\n")
    fresh(monkeypatch)
    made: Any = endpoint(name)
    assert type(made).__name__ == "Service"


def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of this test leave nothing behind."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("service", "needy", "raising"):
        monkeypatch.delitem(sys.modules, module, raising=False)
