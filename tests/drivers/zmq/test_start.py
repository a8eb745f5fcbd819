"""One machine, zero configuration: the receiver that starts on demand, and its run directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import rpclib
from rpclib.testing.inside import inside
from rpclib_zmq.protocol import header
from rpclib_zmq.rundir import RunDir

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

ONE_CALLER = """
import asyncio, sys, rpclib
async def main():
    async with rpclib.connect(sys.argv[1]) as rpc:
        await rpc.client("nobody").fanout("hello")
        print("connected", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


async def connect_and_leave(url: str, **settings: Any) -> None:
    async with rpclib.connect(url, **settings):
        pass


def test_twenty_processes_start_one_receiver(machine: Machine) -> None:
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_CALLER, machine.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    try:
        for caller in callers:
            assert caller.stdout is not None
            assert caller.stdout.readline() == "connected\n"
        pids = {session["pid"] for session in machine.status()["sessions"]}
        assert pids == {caller.pid for caller in callers}, "all of them are sessions of the one receiver"
    finally:
        for caller in callers:
            caller.communicate(timeout=20)


def test_no_tcp_port_is_bound(machine: Machine) -> None:
    machine.worker("t", "a")
    process = Path(f"/proc/{machine.receiver_pid()}")
    inodes = set()
    for fd in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the connection that asked for the pid closes meanwhile
            inodes.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = (process / "net" / table).read_text().splitlines()[1:]
        assert not inodes & {line.split()[9] for line in lines}


def test_the_directory_and_socket_are_private(machine: Machine) -> None:
    asyncio.run(connect_and_leave(machine.url))
    assert machine.path.stat().st_mode & 0o777 == 0o700
    assert (machine.path / "receiver.sock").stat().st_mode & 0o177 == 0


def test_an_idle_receiver_leaves_and_another_starts(machine: Machine) -> None:
    asyncio.run(connect_and_leave(machine.url + "?idle_exit=0.5"))
    machine.wait_for(lambda: not machine.status(), "the receiver to leave")
    assert not (machine.path / "receiver.sock").exists()
    asyncio.run(connect_and_leave(machine.url))
    assert machine.status()


def test_clients_that_meet_a_leaving_receiver_are_served(machine: Machine) -> None:
    """Connecting again and again around the moment the idle receiver leaves never fails."""
    for _ in range(20):
        asyncio.run(connect_and_leave(machine.url + "?idle_exit=0.001"))


def test_nothing_stale_needs_removing(machine: Machine) -> None:
    asyncio.run(connect_and_leave(machine.url))
    os.kill(machine.receiver_pid(), signal.SIGKILL)
    machine.wait_for(lambda: not RunDir(machine.path).listening(), "its death")
    assert (machine.path / "receiver.sock").exists()
    assert (machine.path / "receiver.lock").exists()
    asyncio.run(connect_and_leave(machine.url))
    assert machine.status()


@pytest.mark.parametrize("kind", ["open", "symlink", "file", "other", "long"])
def test_a_directory_that_is_not_ours_alone_is_refused(machine: Machine, kind: str) -> None:
    path = machine.path
    if kind == "open":
        path.mkdir()
        path.chmod(0o755)
    elif kind == "symlink":
        (path.parent / "real").mkdir(mode=0o700)
        path.symlink_to(path.parent / "real")
    elif kind == "file":
        path.write_text("")
    elif kind == "other":
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        path.mkdir(mode=0o700)
        os.chown(path, 12345, -1)
    else:
        path = path / ("x" * 100)
    expected = rpclib.Unreachable if kind == "long" else rpclib.AccessDenied
    with pytest.raises(expected, match="run directory"):
        asyncio.run(connect_and_leave(f"zmq://{path}", connect_timeout=1))


def test_a_receiver_that_cannot_start_says_why(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(rpclib.Unreachable, match="cannot run /nonexistent/python"):
        asyncio.run(connect_and_leave(machine.url, connect_timeout=1))


def test_start_can_be_left_to_a_supervisor(machine: Machine) -> None:
    with pytest.raises(rpclib.Unreachable, match="start rpclib-zmq-receiver"):
        asyncio.run(connect_and_leave(machine.url + "?start=false", connect_timeout=0.5))
    machine.receiver()
    asyncio.run(connect_and_leave(machine.url + "?start=false"))


def test_a_second_receiver_refuses_and_the_first_serves_on(machine: Machine) -> None:
    first = machine.receiver()
    second = machine.cli()
    assert second.returncode == 75
    assert f"another receiver (pid {first.pid})" in second.stderr
    assert machine.receiver_pid() == first.pid


def test_a_receiver_of_another_protocol_is_named(machine: Machine) -> None:
    run = RunDir(machine.path)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(run.endpoint)

    def stranger() -> None:
        peer, hello, _ = router.recv_multipart()
        assert hello[2] == header.HELLO
        welcome = json.dumps({"protocol": 999, "pid": 4711, "version": "99.0"}).encode()
        router.send_multipart([peer, header.greeting(header.WELCOME), welcome])

    thread = threading.Thread(target=stranger)
    thread.start()
    try:
        with pytest.raises(rpclib.Unreachable, match=r"pid 4711, rpclib 99\.0.*kill 4711"):
            asyncio.run(connect_and_leave(machine.url, connect_timeout=1))
    finally:
        thread.join()
        context.destroy(linger=0)


def test_a_receiver_that_does_not_answer_is_an_error(machine: Machine) -> None:
    run = RunDir(machine.path)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(run.socket))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(rpclib.Unreachable, match="does not answer"):
            asyncio.run(connect_and_leave(machine.url, connect_timeout=8))
        assert time.monotonic() - began < 10


def test_status_and_stop(machine: Machine) -> None:
    assert machine.cli("status").returncode == 69
    worker = machine.worker("t", "a")
    text = machine.cli("status").stdout
    assert f"pid {worker.pid}" in text
    assert "Orpclib/t/a: 1 subscribed, 0 waiting" in text
    pid = machine.receiver_pid()
    os.kill(pid, signal.SIGSTOP)
    silent = machine.cli("status")
    os.kill(pid, signal.SIGCONT)
    assert silent.returncode == 69
    assert f"pid {pid}) in {machine.path} does not answer" in silent.stderr
    stopped = machine.cli("stop")
    assert f"receiver (pid {pid}) stopped" in stopped.stdout


async def test_the_undeliverable_notice_names_the_run_directory(machine: Machine) -> None:
    async with rpclib.connect(machine.url) as rpc:
        with pytest.raises(rpclib.NoServer, match=str(machine.path)):
            await rpc.client("nobody", route_grace=0).call("x")


async def test_a_killed_receiver_is_back_within_a_second(machine: Machine) -> None:
    machine.worker("t", "a")
    async with rpclib.connect(machine.url) as rpc:
        client = rpc.client("t", timeout=10)
        assert await client.call("who") == "a"
        waiting = asyncio.create_task(client.call("sleep", seconds=60))
        await machine.until(lambda: len(inside(rpc).calls.table) == 1, "the call in flight")
        os.kill(machine.receiver_pid(), signal.SIGKILL)
        began = time.monotonic()
        with pytest.raises(rpclib.ConnectionLost) as lost:
            await waiting
        assert lost.value.maybe_executed
        assert await client.call("who") == "a"
        assert time.monotonic() - began < 1.5
