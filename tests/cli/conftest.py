"""The command line as users run it: in a working directory of its own, in real processes."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

PATIENCE = 20.0

DRIVERS = '''
import sys
from rpclib.driver import Capability
from rpclib.errors import Unreachable
from rpclib_fake import FakeDriver

class Across(FakeDriver):
    """Says it reaches other processes, so that several may be started."""
    capabilities = FakeDriver.capabilities | {Capability.CROSS_PROCESS}

class Away(FakeDriver):
    """No host ever answers."""
    @classmethod
    async def open(cls, url, options, events):
        print("trying", flush=True)
        raise Unreachable("nobody home")
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without RPCLIB_ variables, with the drivers ``across`` and ``away`` installed."""
    site = tmp_path / "site"
    info = site / "across-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "across_drivers.py").write_text(DRIVERS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: across\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rpclib.drivers]\nacross = across_drivers:Across\naway = across_drivers:Away\n"
    )
    for name in [name for name in os.environ if name.startswith("RPCLIB_") and name != "RPCLIB_TEST_AMQP_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(site))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


class Process:
    """A running ``rpclib`` whose output, both streams together, is read line by line."""

    def __init__(self, arguments: tuple[str, ...]) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", "from rpclib.cli import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, *texts: str) -> str:
        """Read on until each text was in a line; return the last such line."""
        missing, line = set(texts), ""
        while missing:
            line = self._next() or self._fail(f"{missing} is not in the output")
            missing = {text for text in missing if text not in line}
        return line

    def signal(self, *numbers: int) -> None:
        for number in numbers:
            os.kill(self.popen.pid, number)

    def finish(self) -> int:
        """Wait until it and all its children have closed their output; return the exit code."""
        while self._next():
            pass
        return self.popen.wait(PATIENCE)

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        assert self.popen.stdout is not None
        self.popen.stdout.close()

    def _next(self) -> str:
        """The next line; empty at the end."""
        try:
            line = self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            self._fail(f"no output for {PATIENCE} s")
        self.lines.append(line)
        return line

    def _fail(self, why: str) -> NoReturn:
        raise AssertionError(f"{why}:\n{self.output}")

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._queue.put(line)
        self._queue.put("")


Start = Callable[..., Process]


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Start ``rpclib`` with arguments; whatever still runs at the end is killed."""
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        started.append(Process(arguments))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
