"""The three example services as processes on RabbitMQ: called, directed, cast to, fanned out to, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import rpclib
from rpclib.address import default_server
from tests.support.rabbit import Rabbit

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.timeout(120)


@contextmanager
def service(environment: dict[str, str], program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of examples/, from the moment it says that it serves."""
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert "serves" in line, f"{program} said {line!r}"
        yield process
        process.terminate()
        assert process.wait(20) in (0, -9), f"{program} ended with {process.returncode}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def environment(rabbit: Rabbit, exchange: str) -> dict[str, str]:
    return {**os.environ, "RPCLIB_URL": rabbit.url, "RPCLIB_EXCHANGE": exchange}


@pytest.fixture
def services(environment: dict[str, str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(service(environment, f"{name.split('-')[0]}.py", *name.split("-")[1:]))
            for name in ("network", "scheduler", "compute-phantom", "compute-spirit")
        }


def run(environment: dict[str, str], program: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=40).stdout


def test_programs_work_together(services: object, environment: dict[str, str]) -> None:
    """Calls, directed calls, nested calls, fanout and a cast, from an async and a blocking program."""
    out = run(environment, "client.py", "i-1", "i-2", "i-3", "i-4")
    assert out.count("runs on phantom") == out.count("runs on spirit") == 2
    assert "snapshot i-1@" in out
    assert "i-5 runs on" in run(environment, "sync_client.py", "i-5")


def test_nested_call_inherits_the_deadline(
    services: dict[str, subprocess.Popen[str]], environment: dict[str, str], exchange: str
) -> None:
    """A suspended network service: the client's two seconds end its call, and the nested calls with it."""
    with rpclib.sync.connect(environment["RPCLIB_URL"], exchange=exchange) as rpc:
        services["network"].send_signal(signal.SIGSTOP)
        try:
            with pytest.raises((rpclib.CallTimeout, rpclib.RemoteError), match=r"CallTimeout|within"):
                rpc.client("scheduler", timeout=2).call("schedule", instance_id="i-1")
        finally:
            services["network"].send_signal(signal.SIGCONT)
        assert rpc.client("scheduler", timeout=20).call("schedule", instance_id="i-2")["instance"] == "i-2"


def test_the_broker_has_what_is_documented(services: object, rabbit: Rabbit, exchange: str) -> None:
    """Exactly the exchanges, queues and bindings of docs/reference/amqp.md, and one consumer on each queue."""
    topics: dict[str, list[str]] = {"network": [], "scheduler": [], "compute": ["phantom", "spirit"]}
    exchanges = rows(rabbit, exchange, "exchanges", "name", "type", "durable", "auto_delete")
    expected = [[exchange, "topic", True, False]]
    expected += [[f"{exchange}.{topic}.fanout", "fanout", True, False] for topic in topics]
    assert sorted(exchanges) == sorted(expected)

    queues = {
        row[0]: row[1:] for row in rows(rabbit, exchange, "queues", "name", "durable", "exclusive", "consumers")
    }
    host = default_server()
    names = {f"{exchange}.{topic}.{server}" for topic, servers in topics.items() for server in servers or [host]}
    assert queues == {
        **{name: [True, False, 1] for name in names},
        **{f"{exchange}.{topic}": [True, False, len(servers) or 1] for topic, servers in topics.items()},
    }

    bindings = rows(rabbit, exchange, "bindings", "source_name", "routing_key", "destination_name")
    keyed = sorted(row[1:] for row in bindings if row[0] == exchange)
    assert keyed == sorted([name.removeprefix(f"{exchange}."), name] for name in queues)
    fanouts = sorted(row[0] for row in bindings if row[0].endswith(".fanout"))
    assert fanouts == sorted(
        f"{exchange}.{topic}.fanout" for topic, hosts in topics.items() for _ in hosts or [host]
    )


def test_a_killed_worker_is_replaced(
    services: dict[str, subprocess.Popen[str]], environment: dict[str, str], exchange: str
) -> None:
    """SIGKILL one compute: the scheduler is told so, forgets its host, and the other takes over."""
    services["compute-spirit"].kill()
    services["compute-spirit"].wait()
    with rpclib.sync.connect(environment["RPCLIB_URL"], exchange=exchange, timeout=30) as rpc:
        scheduler = rpc.client("scheduler")
        hosts = {scheduler.call("schedule", instance_id=f"j-{number}")["host"] for number in range(4)}
        assert hosts == {"phantom"}
        assert scheduler.call("hosts") == ["phantom"]
        assert rpc.client("compute").call("snapshot", instance_id="j-0") == "j-0@phantom"


def rows(rabbit: Rabbit, exchange: str, what: str, *columns: str) -> list[list[Any]]:
    """The rows of a listing that belong to an exchange, or are bound to it."""
    listed = json.loads(rabbit.run(f"list_{what}", *columns, "--formatter", "json"))
    return [
        [row[column] for column in columns]
        for row in listed
        if str(row[columns[0]]) == exchange or str(row[columns[0]]).startswith(exchange + ".")
    ]
