"""Who may connect from other machines: keys, and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

import rpclib
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import Header
from tests.drivers.zmq.contexts import context

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)


class Keyring:
    """Secrets and known hosts of the machines of a test."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._machine = machine
        self._folder = folder
        self.public: dict[str, str] = {}

    def make(self, name: str) -> Path:
        path = self._folder / f"{name}.secret"
        made = self._machine.cli("keygen", str(path))
        assert made.returncode == 0, made.stderr
        assert path.stat().st_mode & 0o777 == 0o600
        self.public[name] = made.stdout.strip()
        return path

    def known(self, name: str, *lines: tuple[str, str]) -> Path:
        path = self._folder / f"{name}.known"
        path.write_text("# hosts\n" + "".join(f"{address} {self.public[key]}\n" for address, key in lines))
        return path


@pytest.fixture
def keyring(machine: Machine, tmp_path: Path) -> Keyring:
    return Keyring(machine, tmp_path)


async def test_two_machines_with_keys(
    machines: Callable[[], Machine], addresses: Callable[[], str], keyring: Keyring
) -> None:
    a, b, at_b = machines(), machines(), addresses()
    secret_a, secret_b = keyring.make("a"), keyring.make("b")
    known_a, known_b = keyring.known("a", (at_b, "b")), keyring.known("b", ("-", "a"))
    b.receiver("--listen", at_b, "--secret", str(secret_b), "--known-hosts", str(known_b))
    b.worker("t", "b")
    async with rpclib.connect(f"{a.url}?peers={at_b}&secret={secret_a}&known_hosts={known_a}") as rpc:
        assert await rpc.client("t", route_grace=5).call("who") == "b"


@pytest.mark.parametrize("wrong", ["unknown key", "other server key", "no key for it", "no keys here"])
async def test_wrong_keys_are_denied_within_a_second(
    machines: Callable[[], Machine], addresses: Callable[[], str], keyring: Keyring, wrong: str
) -> None:
    a, b, at_b = machines(), machines(), addresses()
    secret_a, secret_b = keyring.make("a"), keyring.make("b")
    keyring.make("c")
    known_b = keyring.known("b", ("-", "c" if wrong == "unknown key" else "a"))
    known_a = keyring.known("a", ("-" if wrong == "no key for it" else at_b, "c" if "other" in wrong else "b"))
    b.receiver("--listen", at_b, "--secret", str(secret_b), "--known-hosts", str(known_b))
    keys = "" if wrong == "no keys here" else f"&secret={secret_a}&known_hosts={known_a}"
    a.receiver(*(f"--peers={at_b}{keys}".replace("&", " --").replace("known_hosts", "known-hosts").split()))
    a.wait_for(lambda: a.status()["denied"] == [at_b], "the refusal")
    began = time.monotonic()
    with pytest.raises(rpclib.AccessDenied, match=at_b):
        async with rpclib.connect(f"{a.url}?peers={at_b}{keys}"):
            pass
    assert time.monotonic() - began < 1
    assert b.status()["links"] == []


async def test_denied_on_demand(
    machines: Callable[[], Machine], addresses: Callable[[], str], keyring: Keyring
) -> None:
    """The first program that starts a receiver is told too."""
    a, b, at_b = machines(), machines(), addresses()
    secret_a, secret_b = keyring.make("a"), keyring.make("b")
    known_a, known_b = keyring.known("a", (at_b, "b")), keyring.known("b")
    b.receiver("--listen", at_b, "--secret", str(secret_b), "--known-hosts", str(known_b))
    with pytest.raises(rpclib.AccessDenied):
        async with rpclib.connect(f"{a.url}?peers={at_b}&secret={secret_a}&known_hosts={known_a}"):
            pass


def test_a_key_that_becomes_known_is_let_in(
    machines: Callable[[], Machine], addresses: Callable[[], str], keyring: Keyring
) -> None:
    a, b, at_b = machines(), machines(), addresses()
    secret_a, secret_b = keyring.make("a"), keyring.make("b")
    known_a, known_b = keyring.known("a", (at_b, "b")), keyring.known("b")
    process = b.receiver("--listen", at_b, "--secret", str(secret_b), "--known-hosts", str(known_b))
    a.receiver("--peers", at_b, "--secret", str(secret_a), "--known-hosts", str(known_a))
    a.wait_for(lambda: a.status()["denied"], "the refusal")
    keyring.known("b", ("-", "a"))
    process.send_signal(signal.SIGHUP)
    a.wait_for(lambda: len(a.status()["links"]) == 1, "the link")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--listen", "0.0.0.0:9501"], "needs secret and known_hosts"),
        (["--listen", "192.0.2.1:9501"], "needs secret and known_hosts"),
        (["--listen", "example.invalid:9501"], "needs secret and known_hosts"),
        (["--listen", "9501"], "not of the form host:port"),
        (["--secret", "/nowhere"], "belong together"),
        (["--listen", "0.0.0.0:9501", "--secret", "/nowhere", "--known-hosts", "/nowhere"], "cannot read /nowhere"),
        (["--matchmaker", "nobody:x"], "no matchmaker"),
        (["--config", "/nowhere"], "/nowhere"),
    ],
)
def test_it_fails_closed(machine: Machine, options: list[str], problem: str) -> None:
    refused = machine.cli(*options)
    assert refused.returncode == 78
    assert problem in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_secret_that_others_can_read_is_refused(machine: Machine, keyring: Keyring) -> None:
    secret = keyring.make("a")
    secret.chmod(0o644)
    refused = machine.cli(
        "--listen", "0.0.0.0:9501", "--secret", str(secret), "--known-hosts", str(keyring.known("a"))
    )
    assert refused.returncode == 78
    assert "chmod 600" in refused.stderr
    assert secret.read_text().strip() not in refused.stderr


def test_a_port_in_use_is_named(machine: Machine, addresses: Callable[[], str]) -> None:
    address = addresses()
    with socket.socket() as taken:
        taken.bind((address.partition(":")[0], int(address.partition(":")[2])))
        taken.listen()
        refused = machine.cli("--listen", address)
    assert refused.returncode == 69
    assert address in refused.stderr


def test_options_from_a_file(machine: Machine, addresses: Callable[[], str], tmp_path: Path) -> None:
    config = tmp_path / "receiver.toml"
    address = addresses()
    config.write_text(f'listen = "{address}"\npeers = ["127.0.0.1:1"]\n')
    machine.receiver("--config", str(config))
    assert machine.status()["listen"] == address
    assert machine.status()["dials"] == {"127.0.0.1:1": "unreachable"}


def flood(address: str, contents: list[bytes]) -> None:
    host, _, port = address.partition(":")
    for content in contents:
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            try:
                raw.sendall(content)
            except OSError:
                continue


async def test_garbage_on_the_port(machines: Callable[[], Machine], addresses: Callable[[], str]) -> None:
    """Without keys too, nothing but a greeting of a receiver is listened to."""
    a, address = machines(), addresses()
    process = a.receiver("--listen", address)
    a.worker("t", "a")
    generator = random.Random(6)
    zmtp1 = b"\x01\x00\x05\x01hello\x03\x00ab"
    contents = [
        b"GET / HTTP/1.1\r\n\r\n",
        zmtp1,
        GREETING,
        GREETING[:30],
        GREETING + os.urandom(100),
        b"\xff" * 100,
    ]
    flood(address, contents * 5 + [generator.randbytes(generator.randrange(1, 300)) for _ in range(200)])
    greeting = [header.greeting(header.LINK), json.dumps({"protocol": 1, "node": "0" * 16}).encode()]
    strange = [[b"R1" + generator.randbytes(60), b"x"] for _ in range(20)]
    strange += [[b"RZ" + bytes([kind]) + generator.randbytes(60), b"{}"] for kind in range(40) for _ in range(3)]
    strange += [[Header(kind, 5, 5, 1, 1, b"t" * 16, b"Orpclib/t/").encode(), b"x"] for kind in range(40)]
    strange += [
        [Header(header.TOPICS, number=1).encode(), payload] for payload in (b"[", b"[]", b'{"x": "y"}', b"9")
    ]
    strange += [[Header(header.TOPICS, number=1).encode(), b'{"Orpclib/t/": -5, "Orpclib/u/": 99999999999}']]
    with context(linger=1000) as made:
        for greet in (False, True):
            with made.socket(zmq.DEALER) as peer:
                peer.connect(f"tcp://{address}")
                if greet:
                    peer.send_multipart(greeting)
                for shape in strange:
                    peer.send_multipart(shape)
                peer.send_multipart([b"x"] * 500)
                peer.send_multipart([Header(header.PING).encode(), b""])
    async with rpclib.connect(a.url) as rpc:
        client = rpc.client("t", timeout=10)
        assert await client.call("who") == "a"
        assert process.poll() is None
        a.wait_for(lambda: a.status()["links"] == [], "the impostor's link to end")
        assert {await client.call("who") for _ in range(10)} == {"a"}


async def test_garbage_on_a_port_with_keys(
    machines: Callable[[], Machine], addresses: Callable[[], str], keyring: Keyring
) -> None:
    a, address = machines(), addresses()
    secret, known = keyring.make("a"), keyring.known("a")
    process = a.receiver("--listen", address, "--secret", str(secret), "--known-hosts", str(known))
    a.worker("t", "a")
    generator = random.Random(7)
    curve = GREETING.replace(b"NULL" + bytes(16), b"CURVE" + bytes(15))
    flood(address, [curve + generator.randbytes(generator.randrange(300)) for _ in range(100)])
    with context(linger=0) as made, made.socket(zmq.DEALER) as peer:
        peer.connect(f"tcp://{address}")
        peer.send_multipart([header.greeting(header.LINK), b'{"protocol": 1, "node": "x"}'])
        assert not peer.poll(500)
    async with rpclib.connect(a.url) as rpc:
        assert await rpc.client("t", timeout=10).call("who") == "a"
    assert a.status()["links"] == []
    assert process.poll() is None
