"""Whatever arrives on the receiver's socket, it serves on."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import zmq

import rpclib
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import PROTOCOL, Header
from rpclib_zmq.protocol.records import LARGE, Record, read
from rpclib_zmq.rundir import RunDir
from tests.drivers.zmq.contexts import context

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
RAW = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zmtp1": b"\x01\x00\x05\x01hello\x03\x00ab",
    "greeting": GREETING,
    "greeting and garbage": GREETING + os.urandom(200),
    "half a greeting": GREETING[:20],
    "huge frame": GREETING + b"\x04\x26\x05READY" + bytes(100) + b"\x02" + b"\x7f" * 8 + b"x" * 1000,
}


def serves(machine: Machine) -> bool:
    async def ask() -> bool:
        async with rpclib.connect(machine.url) as rpc:
            return bool(await rpc.client("t", timeout=5).call("who") == "a")

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", RAW)
def test_raw_bytes(machine: Machine, kind: str) -> None:
    machine.worker("t", "a")
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(machine.path / "receiver.sock"))
            raw.sendall(RAW[kind])
    assert serves(machine)


def test_random_bytes(machine: Machine) -> None:
    machine.worker("t", "a")
    pid = machine.receiver_pid()
    generator = random.Random(4)
    for _ in range(200):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(machine.path / "receiver.sock"))
            try:
                raw.sendall(generator.randbytes(generator.randrange(300)))
            except BrokenPipeError:
                continue
    assert serves(machine)
    assert machine.receiver_pid() == pid


def hello(socket: zmq.Socket[bytes], protocol: int = PROTOCOL) -> dict[str, Any]:
    """Introduce a session by hand; returns the answer."""
    greeting = b'{"protocol": %d, "pid": 1, "program": "by hand\\n"}' % protocol
    socket.send_multipart([header.greeting(header.HELLO), greeting])
    assert socket.poll(5000)
    return header.read_json(socket.recv_multipart()[1])


@contextmanager
def by_hand(machine: Machine) -> Iterator[zmq.Socket[bytes]]:
    """A socket of its own that is connected to the receiver."""
    with context(linger=0) as made, made.socket(zmq.DEALER) as peer:
        peer.connect(RunDir(machine.path).endpoint)
        yield peer


def next_record(peer: zmq.Socket[bytes]) -> Record:
    """The next record that is no heartbeat."""
    while True:
        assert peer.poll(5000)
        data, offset = peer.recv_multipart()[0], 0
        while offset < len(data):
            record, offset = read(data, offset)
            if record.kind != header.PING:
                return record


def test_messages_of_every_shape(machine: Machine) -> None:
    """Wrong frame counts, sizes, magic, kinds and names, before and after a greeting; records before one."""
    machine.worker("t", "a")
    pid = machine.receiver_pid()
    generator = random.Random(5)
    head = Header(header.DATA, ttl=1000, tag=b"t" * 16, name=b"Orpclib/t/").encode()
    data = Record(header.DATA, ttl=1000, tag=b"t" * 16, payload=b"no envelope", name=b"Orpclib/t/").encode()
    large = Record(header.DATA, tag=b"t" * 16, size=LARGE, name=b"Orpclib/t/").encode()
    shapes = [[b""], [b"", b""], [data[:20], b"x"], [b"XX" + head[2:], b"x"]]
    for batch in (head, data, data[:-1], data[:50], data * 2000, large, large * 100):
        shapes += [[batch, *[b"x" * size] * count] for count in (0, 1, 2, 1000) for size in (0, 1, LARGE)]
    shapes += [[generator.randbytes(generator.randrange(100)), b"x"] for _ in range(100)]
    shapes += [[b"RZ" + generator.randbytes(60), b"x"] for _ in range(200)]
    shapes += [[data + generator.randbytes(60)] for _ in range(100)]
    for kind in range(40):
        shapes += [[Header(kind, number=1, value=0xFFFFFFFF, name=b"\xff" * 300).encode(), b""]]
        shapes += [[Record(kind, number=1, ttl=0xFFFFFFFF, value=0xFFFFFFFF, name=b"\xff" * 300).encode()]]
    with context(linger=1000) as made:
        for greet in (False, True):
            for shape in shapes:
                if shape[0][:3] == header.greeting(header.QUIT)[:3]:
                    continue  # whoever may connect may also end the receiver
                with made.socket(zmq.DEALER) as peer:
                    peer.connect(RunDir(machine.path).endpoint)
                    if greet:
                        hello(peer)
                    peer.send_multipart(shape)
                    peer.send_multipart([Header(header.STATUS).encode(), b""])
    assert serves(machine)
    assert machine.receiver_pid() == pid
    machine.wait_for(lambda: len(machine.status()["sessions"]) == 1, "the garbage to be forgotten")
    assert machine.status()["held_bytes"] == 0


def test_a_session_that_sends_garbage_is_told_why(machine: Machine) -> None:
    machine.receiver()
    with by_hand(machine) as peer:
        hello(peer)
        peer.send(Record(header.DATA, size=LARGE, name=b"Orpclib/t/").encode())
        refused = next_record(peer)
        assert (refused.kind, refused.number) == (header.REFUSED, 0)
        assert refused.name == b"it sent a malformed batch: a frame is not as announced"
    assert machine.status()["sessions"] == []


def test_a_session_of_another_protocol_is_told_which_the_receiver_speaks(machine: Machine) -> None:
    machine.receiver()
    with by_hand(machine) as peer:
        answer = hello(peer, protocol=PROTOCOL - 1)
        assert answer["protocol"] == PROTOCOL
        assert "session" not in answer
        peer.send_multipart([Header(header.PING).encode(), b""])  # as sessions of protocol 1 do
        machine.wait_for(lambda: machine.status()["strangers"] == 1, "the message to be counted")
    assert machine.status()["sessions"] == []


def test_inboxes_of_others_cannot_be_taken(machine: Machine) -> None:
    machine.worker("t", "a")
    node = machine.status()["node"]
    with by_hand(machine) as peer:
        number = hello(peer)["session"]
        for name in (
            b"I%s.1.1" % node.encode(),
            b"I" + b"0" * 16 + b".%x.1" % number,
            b"Orpclib/t",
            b"Ano/t/x",
        ):
            peer.send(Record(header.SUBSCRIBE, number=7, value=1, name=name).encode())
            answer = next_record(peer)
            assert (answer.kind, answer.number) == (header.REFUSED, 7), name


@pytest.mark.parametrize("at_once", [1, 1000])
def test_a_session_that_sends_more_than_it_may_is_ended(machine: Machine, at_once: int) -> None:
    machine.worker("t", "a", workers=1)
    with by_hand(machine) as peer:
        hello(peer)
        data = Record(header.DATA, payload=b"not an envelope", name=b"Orpclib/t/a").encode()
        os.kill(machine.status()["sessions"][0]["pid"], 19)
        for _ in range(9000 // at_once):
            peer.send(data * at_once)
        refused = next_record(peer)
        assert (refused.kind, refused.name) == (header.REFUSED, b"it sends faster than it may")
        machine.wait_for(lambda: len(machine.status()["sessions"]) == 1, "its end")
