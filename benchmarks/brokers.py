"""The private brokers of one run: RabbitMQ, a NATS server, the rpclib ZeroMQ receiver.

Each is started on a free port or socket with its defaults and its data in the run's folder, and ends with it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.usage import pids_of_session

STARTS_WITHIN = 60.0
_PATH = os.pathsep.join(["/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/usr/sbin", os.environ.get("PATH", "")])


class NotStarted(Exception):
    """Why there is no such broker; a line."""


class Broker:
    """A running broker: where it is, and the processes it consists of."""

    def __init__(
        self,
        url: str,
        version: str = "",
        process: subprocess.Popen[bytes] | None = None,
        farewell: Sequence[str] = (),
    ) -> None:
        """``farewell``: a command that ends what outlives the process."""
        self.url = url
        self.version = version
        self._process = process
        self._farewell = farewell

    def pids(self) -> list[int]:
        return [] if self._process is None else pids_of_session(self._process.pid)

    def stop(self) -> None:
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            try:
                self._process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
        if self._farewell:
            subprocess.run(self._farewell, capture_output=True, timeout=10, check=False)


def start(kind: str, folder: Path) -> Broker:
    """Start a broker of that kind. Raises NotStarted."""
    return {"rabbitmq": _rabbitmq, "nats": _nats, "receiver": _receiver, "none": _none}[kind](folder)


def _none(folder: Path) -> Broker:
    return Broker("fake://benchmark")


def _rabbitmq(folder: Path) -> Broker:
    program = _which("rabbitmq-server")
    port, home = _free_port(), folder / "rabbitmq"
    home.mkdir()
    settings = {
        "HOME": str(home),
        "RABBITMQ_NODENAME": f"bench-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(_free_port()),
        "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(home),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "none"),
        # A port mapper of its own, because Erlang's outlives whoever started it.
        "ERL_EPMD_PORT": str(_free_port()),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    log = home / "rabbitmq.log"
    process = _spawn([program], log, {"PATH": _PATH, **settings})
    _until(lambda: b"completed with" in log.read_bytes(), process, log)
    found = re.search(r"RabbitMQ (\d[\w.]*)", log.read_text(errors="replace"))
    version = found[1] if found else "?"
    farewell = [_which("epmd"), "-port", settings["ERL_EPMD_PORT"], "-kill"]
    return Broker(f"amqp://guest:guest@127.0.0.1:{port}/", version, process, farewell)


def _nats(folder: Path) -> Broker:
    program, port = _which("nats-server"), _free_port()
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    config, log = folder / "nats.conf", folder / "nats.log"
    config.write_text(f'listen: "127.0.0.1:{port}"\nmax_payload: 8MB\n')
    process = _spawn([program, "--config", str(config)], log)
    _until(lambda: b"Server is ready" in log.read_bytes(), process, log)
    return Broker(f"nats://127.0.0.1:{port}", version, process)


def _receiver(folder: Path) -> Broker:
    run, log = folder / "zmq", folder / "receiver.log"
    process = _spawn([sys.executable, "-m", "rpclib_zmq.receiver", "--run-dir", str(run)], log)
    _until(lambda: _answers(run / "receiver.sock"), process, log)
    return Broker(f"zmq://{run}", "", process)


def _spawn(command: list[str], log: Path, settings: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(settings or {})},
            start_new_session=True,
        )


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise NotStarted(f"{log.stem} did not start: {last}"[:300])
        time.sleep(0.05)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _which(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise NotStarted(f"{name} is not installed: apt-get install {name}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
