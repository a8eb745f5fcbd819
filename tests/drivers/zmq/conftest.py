"""Private run directories, and processes that end with their test."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rpclib.errors import TransportError
from rpclib.testing.waiting import until
from rpclib_zmq.protocol import header
from rpclib_zmq.receiver.cli import ask
from rpclib_zmq.rundir import RunDir

WORKER = Path(__file__).with_name("worker.py")


class Machine:
    """One run directory, its receiver, and the worker processes a test starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"zmq://{path}"
        self._processes: list[subprocess.Popen[str]] = []

    def cli(self, *arguments: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """Run ``rpclib-zmq-receiver`` for this run directory and wait for it."""
        command = [sys.executable, "-m", "rpclib_zmq.receiver", "--run-dir", str(self.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def status(self) -> dict[str, Any]:
        """What the receiver says about itself; empty when there is none."""
        try:
            return ask(RunDir(self.path), header.STATUS) or {}
        except TransportError:
            return {}

    def receiver_pid(self) -> int:
        return int(self.status()["pid"])

    def receiver(self, *arguments: str, run_in: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """A receiver in the foreground, serving when this returns."""
        command = ("-m", "rpclib_zmq.receiver", "--run-dir", str(self.path), *arguments)
        process = self._popen(*command, run_in=run_in)
        self.wait_for(lambda: self.status() or process.poll() is not None, "a receiver")
        return process

    def worker(self, topic: str, name: str, url: str | None = None, **settings: Any) -> subprocess.Popen[str]:
        """A process that serves ``topic`` as ``name``, serving when this returns."""
        process = self._popen(str(WORKER), url or self.url, topic, name, json.dumps(settings))
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", f"the worker said {line!r}"
        return process

    def _popen(self, *arguments: str, run_in: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*run_in, sys.executable, *arguments], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self.path.is_dir() and (pid := self.status().get("pid")):
            os.kill(pid, signal.SIGKILL)

    @staticmethod
    def wait_for(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
        """Ask until the condition holds; fails the test when it does not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.01)

    @staticmethod
    async def until(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
        """`wait_for` in a loop."""
        await until(condition, what, seconds)


@pytest.fixture
def machines() -> Iterator[Callable[[], Machine]]:
    """Makes machines that end with the test."""
    parent = Path(tempfile.mkdtemp(prefix="rz"))
    made: list[Machine] = []

    def make() -> Machine:
        made.append(Machine(parent / f"run{len(made)}"))
        return made[-1]

    try:
        yield make
    finally:
        for machine in made:
            machine.close()
        shutil.rmtree(parent)


@pytest.fixture
def addresses() -> Callable[[], str]:
    """Gives loopback addresses, each with another host, and a port that is free."""
    hosts = itertools.count(1)

    def give() -> str:
        host = f"127.0.0.{next(hosts)}"
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"{host}:{probe.getsockname()[1]}"

    return give


@pytest.fixture
def machine(machines: Callable[[], Machine]) -> Machine:
    return machines()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutines, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
