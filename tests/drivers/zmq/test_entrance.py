"""The receiver's entrance: who is let in, for how long, and that everything said there is heard."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.zmtp import Frame, handshake, prefix
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.elsewhere import Nowhere
from rpclib_zmq.receiver.entrance import Connection, Entrance
from rpclib_zmq.receiver.router import Router
from rpclib_zmq.receiver.sources import Sources
from tests.drivers.zmq.by_hand import Program, data

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

HELLO = handshake(b"DEALER")
ANSWER = handshake(b"ROUTER")
SECONDS = 15.0


class Door:
    """An entrance, what is said at it, and those who came."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[tuple[Connection, list[Frame]]] = []
        self.ended: list[tuple[Connection, str]] = []
        self.sources = Sources()
        self.entrance = Entrance(
            path,
            self.sources,
            lambda connection, frames: self.said.append((connection, frames)),
            lambda connection, reason: self.ended.append((connection, reason)),
        )
        self._clients = ExitStack()

    def client(self, *said: bytes) -> socket.socket:
        client = self._clients.enter_context(socket.socket(socket.AF_UNIX))
        client.connect(str(self.path))
        for part in said:
            client.sendall(part)
        return client

    def guest(self) -> tuple[socket.socket, Connection]:
        """A client, and its connection with a session."""
        client, count = self.client(HELLO + b"\0\5hello"), len(self.said)
        self.until(lambda: len(self.said) > count, "the greeting")
        connection, frames = self.said.pop()
        assert frames == [b"hello"]
        connection.session = Router("ab" * 8, Nowhere()).greet(connection.send, connection.pid, "test", monotonic())
        return client, connection

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = monotonic() + SECONDS
        while not condition():
            assert monotonic() < deadline, what
            self.sources.wait(0.01)

    def settle(self) -> None:
        """Everything that came so far is heard."""
        for _ in range(20):
            self.sources.wait(0)

    def close(self) -> None:
        self.entrance.close()
        self.sources.close()
        self._clients.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path / "s")
    made.entrance.open()
    yield made
    made.close()


def is_open(client: socket.socket) -> bool:
    """Whether the other end has not closed, after reading what it sent."""
    client.setblocking(False)
    try:
        while client.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    return False


def test_whoever_says_nothing_is_sent_away(door: Door) -> None:
    silent = [
        door.client(),
        door.client(HELLO[:20]),
        door.client(HELLO),
        door.client(HELLO, b"\1\1a"),
        door.client(HELLO, b"\0\1a"),  # a question, or garbage
    ]
    guest, connection = door.guest()
    door.settle()
    door.entrance.tick(monotonic() + limits.INTRODUCTION - 1)
    assert all(map(is_open, [*silent, guest]))
    door.entrance.tick(monotonic() + limits.INTRODUCTION + 1)
    assert not any(map(is_open, silent))
    assert is_open(guest)
    assert door.ended == [], "nobody left"
    assert connection.session is not None
    connection.session.gone = True
    door.entrance.tick(monotonic() + limits.INTRODUCTION + 1)
    assert not is_open(guest)


def test_the_kernel_says_who_it_is(door: Door) -> None:
    _, connection = door.guest()
    assert connection.pid == os.getpid()
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(door.path)!r}); s.sendall({HELLO!r}"
    with subprocess.Popen([sys.executable, "-c", code + " + b'\\0\\1x'); s.recv(1000)"]) as process:
        door.until(lambda: door.said, "the message")
        [(connection, _)] = door.said
        assert connection.pid == process.pid
        process.wait()


def test_the_socket_is_its_owners_alone(door: Door) -> None:
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
    before = os.umask(0o022)
    os.umask(before)
    second = Door(door.path)
    second.entrance.open()  # in place of the first
    try:
        _, connection = second.guest()
        assert not connection.ended
        assert stat.S_IMODE(door.path.stat().st_mode) == 0o600
        assert os.umask(before) == before
    finally:
        second.close()


def test_the_end_is_told_after_the_last_message(door: Door) -> None:
    client, connection = door.guest()
    for number in range(100):
        client.sendall(b"\0\3%03d" % number)
    client.close()
    door.until(lambda: door.ended, "the end")
    assert [frames for _, frames in door.said] == [[b"%03d" % number] for number in range(100)]
    assert door.ended == [(connection, "its connection is gone")]
    door.settle()
    assert len(door.ended) == 1


def test_whoever_sends_what_is_no_message_is_told_and_sent_away(door: Door) -> None:
    client, connection = door.guest()
    client.sendall(b"\0\1a" + b"\2" + (limits.MAX_FRAME + 1).to_bytes(8, "big"))
    door.until(lambda: door.ended, "the end")
    assert door.said == [(connection, [b"a"])]
    assert door.ended == [(connection, f"it sent a frame of {limits.MAX_FRAME + 1} bytes")]
    assert not is_open(client)
    assert not connection.send([b"x"])
    other, _ = door.guest()
    assert is_open(other)


def test_what_a_session_sent_can_be_read_out_of_turn(door: Door) -> None:
    client, connection = door.guest()
    sent = [b"%d" % number + b"x" * 70_000 for number in range(2)]
    client.sendall(b"".join(prefix(len(body)) + body for body in sent))
    door.entrance.drain(connection)
    assert [frames for _, frames in door.said] == [[body] for body in sent]
    assert door.ended == []
    client.close()
    door.entrance.drain(connection)
    assert door.ended == [(connection, "its connection is gone")]
    door.entrance.drain(connection)
    door.settle()


def test_what_a_client_does_not_read_waits_for_it(door: Door) -> None:
    client, connection = door.guest()
    body = os.urandom(1 << 20)
    for _ in range(3):
        assert connection.send([body])
    got = bytearray()
    client.setblocking(False)
    expected = ANSWER + (prefix(len(body)) + body) * 3

    def all_came() -> bool:
        try:
            got.extend(client.recv(1 << 16))
        except BlockingIOError:
            return False
        return len(got) >= len(expected)

    door.until(all_came, "everything")
    assert got == expected
    began, rounds = monotonic(), 0
    while monotonic() - began < 0.2:
        door.sources.wait(0.1)
        rounds += 1
    assert rounds < 10, "nothing is left to write"


def test_whoever_connected_before_the_end_is_heard(door: Door) -> None:
    """Also one that nobody had accepted."""
    known, _ = door.guest()
    known.sendall(b"\0\1a")
    door.client(HELLO + b"\0\1b")
    door.entrance.stop()
    assert sorted(bytes(frames[0]) for _, frames in door.said) == [b"a", b"b"]
    assert not door.path.exists()


def test_the_last_word_is_waited_for_but_not_for_long(tmp_path: Path) -> None:
    door = Door(tmp_path / "s")
    door.entrance.open()
    clients = []
    for _ in range(20):
        client, connection = door.guest()
        assert connection.send([b"x" * (1 << 20)])
        clients.append(client)
    began = monotonic()
    door.close()
    assert 0.1 < monotonic() - began < 5


def descriptors(pid: int) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]


def cpu(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def program(machine: Machine) -> Iterator[Program]:
    machine.receiver()
    made = Program(str(machine.path / "receiver.sock"))
    made.greet()
    made.subscribe(made.inbox)
    yield made
    made.close()


def served(program: Program) -> bool:
    program.say(data(program.inbox, b"to myself"))
    return program.next(header.DELIVER).payload == b"to myself"


def test_a_receiver_without_a_free_descriptor_serves_on_and_accepts_again(
    machine: Machine, program: Program
) -> None:
    path, pid = str(machine.path / "receiver.sock"), machine.receiver_pid()
    limit = max(descriptors(pid)) + 4
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(8)]
        for client in crowd:
            client.connect(path)
        late = Program(path)
        stack.callback(late.close)
        late.hello()
        machine.wait_for(lambda: len(descriptors(pid)) == limit, "all descriptors to be taken")
        began = cpu(pid)
        for _ in range(3):  # each half a second after the other
            program.next(header.PING)
            assert served(program)
        assert cpu(pid) - began < 0.3, "it does not spin"
        assert len(descriptors(pid)) == limit, "they are still taken"
        for client in crowd:
            client.close()
        assert late.welcome()["session"] > program.number
    assert served(program)
    machine.wait_for(lambda: len(machine.status()["sessions"]) == 1, "the late one to be gone")


def test_a_program_does_not_load_libzmq(machine: Machine) -> None:
    """Its threads, memory and start-up time are for receivers."""
    machine.worker("t", "a")
    code = """
import asyncio, sys, rpclib

async def main():
    async with rpclib.connect(sys.argv[1]) as rpc:
        assert await rpc.client("t", timeout=10).call("who") == "a"

asyncio.run(main())
print([name for name in sys.modules if name.partition(".")[0] == "zmq"])
"""
    run = subprocess.run([sys.executable, "-c", code, machine.url], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")
