"""Whatever arrives on the receiver's socket, it serves on."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import TYPE_CHECKING

import pytest
import zmq

import rpclib
from rpclib_zmq import header
from rpclib_zmq.header import Header
from rpclib_zmq.rundir import RunDir

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


def hello(socket: zmq.Socket[bytes]) -> int:
    """Begin a session by hand; returns its number."""
    socket.send_multipart([header.greeting(header.HELLO), b'{"protocol": 1, "pid": 1, "program": "by hand\\n"}'])
    assert socket.poll(5000)
    return int(header.read_json(socket.recv_multipart()[1])["session"])


def test_messages_of_every_shape(machine: Machine) -> None:
    """Wrong frame counts, sizes, magic, kinds and names, before and after a greeting."""
    machine.worker("t", "a")
    pid = machine.receiver_pid()
    generator = random.Random(5)
    data = Header(header.DATA, ttl=1000, tag=b"t" * 16, name=b"Orpclib/t/").encode()
    shapes = [[b""], [b"", b""], [data], [data, b"x", b"y"], [data[:20], b"x"], [b"XX" + data[2:], b"x"]]
    shapes += [[generator.randbytes(generator.randrange(100)), b"x"] for _ in range(100)]
    shapes += [[b"RZ" + generator.randbytes(60), b"x"] for _ in range(200)]
    shapes += [[Header(kind, number=1, value=0xFFFFFFFF, name=b"\xff" * 300).encode(), b""] for kind in range(40)]
    shapes += [[data] + [b"x"] * 1000]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    quit_kind = header.QUIT
    try:
        for greet in (False, True):
            for shape in shapes:
                if shape[0][2:3] == bytes([quit_kind]):
                    continue  # whoever may connect may also end the receiver
                with context.socket(zmq.DEALER) as peer:
                    peer.connect(RunDir(machine.path).endpoint)
                    if greet:
                        hello(peer)
                    peer.send_multipart(shape)
                    peer.send_multipart([Header(header.STATUS).encode(), b""])
    finally:
        context.destroy(linger=1000)
    assert serves(machine)
    assert machine.receiver_pid() == pid
    machine.wait_for(lambda: len(machine.status()["sessions"]) == 1, "the garbage to be forgotten")


def test_inboxes_of_others_cannot_be_taken(machine: Machine) -> None:
    machine.worker("t", "a")
    node = machine.status()["node"]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as peer:
            peer.connect(RunDir(machine.path).endpoint)
            number = hello(peer)
            for name in (
                b"I%s.1.1" % node.encode(),
                b"I" + b"0" * 16 + b".%x.1" % number,
                b"Orpclib/t",
                b"Ano/t/x",
            ):
                peer.send_multipart([Header(header.SUBSCRIBE, number=7, value=1, name=name).encode(), b""])
                while (head := header.decode(peer.recv_multipart()[0])) and head.kind == header.PING:
                    pass
                assert head is not None
                assert (head.kind, head.number) == (header.REFUSED, 7), name
    finally:
        context.destroy(linger=0)


def test_a_session_that_sends_more_than_it_may_is_ended(machine: Machine) -> None:
    machine.worker("t", "a", workers=1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as peer:
            peer.connect(RunDir(machine.path).endpoint)
            hello(peer)
            data = Header(header.DATA, name=b"Orpclib/t/a").encode()
            os.kill(machine.status()["sessions"][0]["pid"], 19)
            for _ in range(9000):
                peer.send_multipart([data, b"not an envelope"])
            machine.wait_for(lambda: len(machine.status()["sessions"]) == 1, "its end")
    finally:
        context.destroy(linger=0)
