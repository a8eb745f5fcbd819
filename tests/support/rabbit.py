"""Private RabbitMQ nodes for tests, started by pifpaf on free ports, in directories that go afterwards.

``RPCLIB_TEST_AMQP_URL`` names an existing broker to use instead; tests that break or inspect the broker are
skipped then, since it is not theirs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pifpaf.drivers.rabbitmq import RabbitMQDriver

USER, PASSWORD = "rpclib", "pässword-that-must-not-show"
PROGRAMS = os.pathsep.join(["/usr/lib/rabbitmq/bin", "/usr/sbin", os.environ.get("PATH", os.defpath)])
DISTRIBUTION = 20_000
"""RabbitMQ's offset from a node's AMQP port to the port it talks to other nodes on."""


class Rabbit:
    """One node, or a cluster of three, that only this test run knows. ``config`` is its rabbitmq.conf."""

    def __init__(self, nodes: int = 1, config: Path | None = None) -> None:
        self.ports = free_ports(nodes)
        self._pifpaf = RabbitMQDriver(
            port=self.ports[0],
            nodename=f"rpclib-{self.ports[0]}",
            username=USER,
            password=PASSWORD,
            cluster=nodes > 1,
        )
        suffixes = [f"-{number + 1}" for number in range(nodes)] if nodes > 1 else [""]
        self.names = [f"rpclib-{self.ports[0]}{suffix}@localhost" for suffix in suffixes]
        # A port mapper of our own, because Erlang's is a daemon that outlives whoever started it.
        self._settings = {"ERL_EPMD_PORT": str(free_ports(1)[0]), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        if config is not None:
            self._settings["RABBITMQ_CONFIG_FILE"] = str(config)

    @property
    def url(self) -> str:
        """With every node; the password is percent-encoded."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"amqp://{USER}:p%C3%A4ssword-that-must-not-show@{hosts}/"

    def start(self, node: int = 0) -> None:
        """Start a node that `stop` or `kill` ended; it still has its data. Returns when clients can connect."""
        with self._environment():
            self._pifpaf.start_node(self.names[node])

    def kill(self, node: int = 0, how: signal.Signals = signal.SIGKILL) -> None:
        """Send ``how`` to all processes of a node and wait for their end."""
        process = self._pifpaf._process.pop(self.names[node])
        os.killpg(process.pid, how)
        process.wait(timeout=30)

    def stop(self, node: int = 0) -> None:
        """End a node in good order, as an operator does."""
        self.kill(node, signal.SIGTERM)

    @contextmanager
    def suspended(self, node: int = 0) -> Iterator[None]:
        """The node hangs: its kernel accepts connections, and nobody answers."""
        group = self._pifpaf._process[self.names[node]].pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def run(self, *command: str, node: int = 0) -> str:
        """What ``rabbitmqctl COMMAND`` prints."""
        return self.tool("rabbitmqctl", *command, node=node)

    def tool(self, name: str, *command: str, node: int = 0) -> str:
        """`run` for another of RabbitMQ's tools."""
        done = subprocess.run(
            [_program(name), "--quiet", "--node", self.names[node], *command],
            env={**os.environ, **self._pifpaf.env, **self._settings},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    async def ctl(self, *command: str, node: int = 0) -> str:
        """`run`, without blocking the loop."""
        return await asyncio.to_thread(lambda: self.run(*command, node=node))

    async def list(self, what: str, *columns: str) -> list[dict[str, Any]]:
        """The rows of ``rabbitmqctl list_WHAT COLUMNS``."""
        found: list[dict[str, Any]] = json.loads(await self.ctl(f"list_{what}", *columns, "--formatter", "json"))
        return found

    async def alarm(self, on: bool) -> None:
        """Raise or end the memory alarm, which makes the broker refuse to take messages."""
        await self.ctl("set_vm_memory_high_watermark", "0.00001" if on else "0.6")

    def open(self) -> None:
        """Start everything. Returns when clients can connect."""
        with self._environment():
            self._pifpaf.setUp()

    def close(self) -> None:
        """End everything, the port mapper included, and delete the data."""
        for node, name in enumerate(self.names):
            if name in self._pifpaf._process:
                self.kill(node)
        self._pifpaf.cleanUp()
        subprocess.run(
            [_program("epmd"), "-kill"], env={**os.environ, **self._settings}, capture_output=True, check=False
        )

    @contextmanager
    def _environment(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._settings.items():
                patch.setenv(name, value)
            yield


@contextmanager
def running(nodes: int = 1, config: Path | None = None) -> Iterator[Rabbit]:
    """A broker of your own. Fails with what to do when RabbitMQ is not installed."""
    if shutil.which("rabbitmq-server", path=PROGRAMS) is None:
        pytest.fail(
            "RabbitMQ is not installed: run `make system` as root, or set RPCLIB_TEST_AMQP_URL", pytrace=False
        )
    logging.getLogger("pifpaf").setLevel(logging.ERROR)  # it warns of every process that ended by itself
    rabbit = Rabbit(nodes, config)
    try:
        rabbit.open()
        yield rabbit
    finally:
        rabbit.close()


@pytest.fixture(scope="session")
def rabbit() -> Iterator[Rabbit]:
    """The private node of this test run, for tests that inspect it or leave it as they found it."""
    if "RPCLIB_TEST_AMQP_URL" in os.environ:
        pytest.skip("needs a broker of its own: unset RPCLIB_TEST_AMQP_URL")
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """Where a broker is."""
    if url := os.environ.get("RPCLIB_TEST_AMQP_URL"):
        return url
    started: Rabbit = request.getfixturevalue("rabbit")
    return started.url


@pytest.fixture
def exchange() -> str:
    """An exchange that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


def _program(name: str) -> str:
    found = shutil.which(name, path=PROGRAMS)
    assert found is not None, f"{name} is not installed"
    return found


def free_ports(count: int) -> list[int]:
    """Adjacent free ports on the loopback interface, with those RabbitMQ derives from them."""
    for _ in range(100):
        first = random.randrange(20_000, 32_000)
        ports = list(range(first, first + count))
        if all(_is_free(port) and _is_free(port + DISTRIBUTION) for port in ports):
            return ports
    raise RuntimeError("no free ports between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
