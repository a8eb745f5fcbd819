"""``amqps://``: encrypted, verified unless told otherwise, and with client certificates instead of passwords."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rpclib
from rpclib.errors import AccessDenied, ConfigError, Unreachable
from rpclib.testing.waiting import tap
from tests.drivers.amqp.session import connect, connected, one, session
from tests.support.rabbit import Rabbit, free_ports, running

CONFIG = """
listeners.ssl.default = {port}
ssl_options.cacertfile = {folder}/ca.pem
ssl_options.certfile = {folder}/broker.pem
ssl_options.keyfile = {folder}/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
ssl_cert_login_from = common_name
"""


@dataclass(frozen=True)
class Secured:
    """A node with a TLS port, and the folder of the certificates."""

    node: Rabbit
    port: int
    folder: Path

    def url(self, host: str = "localhost", user: str = "") -> str:
        return f"amqps://{user or self.node.url.split('@')[0].removeprefix('amqp://')}@{host}:{self.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"


def certificate(folder: Path, name: str, common_name: str, *extra: str) -> None:
    """Make ``name.key`` and ``name.pem``, signed by the authority in ``folder`` or, for ``ca``, by itself."""
    program = shutil.which("openssl")
    assert program is not None, "openssl is not installed"
    signer = [] if name == "ca" else ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run(
        [program, "req", "-x509", *key, *files, "-subj", f"/CN={common_name}", *signer, *extra],
        check=True,
        capture_output=True,
        timeout=30,
    )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with a TLS port that also takes client certificates for users."""
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "ca", "test authority")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE")
    certificate(folder, "broker", "localhost", "-addext", "subjectAltName=DNS:localhost", *leaf)
    certificate(folder, "client", "robot", *leaf)
    [port] = free_ports(1)
    config = folder / "rabbitmq.conf"
    config.write_text(CONFIG.format(port=port, folder=folder))
    with running(config=config) as node:
        node.tool("rabbitmq-plugins", "enable", "rabbitmq_auth_mechanism_ssl")
        node.run("add_user", "robot", "")
        node.run("set_permissions", "robot", ".*", ".*", ".*")
        yield Secured(node, port, folder)


async def test_messages_pass(secured: Secured, exchange: str) -> None:
    """Small ones, and ones longer than TLS records and socket buffers."""
    async with session(secured.url(), tls_ca=secured.authority) as (driver, _):
        subscription = await tap(driver, one(exchange), prefetch=0)
        route = driver.route(one(exchange))
        bodies = [b"small", b"\xce" * (6 << 20), b"", b"end"]
        for body in bodies:
            driver.send(route, body, None)
        await driver.gate.room()
        assert [item.body for item in await subscription.receive(len(bodies))] == bodies


async def test_unknown_authority_is_refused(secured: Secured) -> None:
    """By default; and the message says which option is about it."""
    with pytest.raises(Unreachable, match=r"not trusted.*tls_ca"):
        await connect(secured.url())


async def test_other_host_name_is_refused(secured: Secured) -> None:
    with pytest.raises(Unreachable, match=r"not trusted.*127\.0\.0\.1"):
        await connect(secured.url("127.0.0.1"), tls_ca=secured.authority)


async def test_verification_can_be_switched_off(secured: Secured) -> None:
    async with session(secured.url("127.0.0.1"), tls_verify=False):
        pass


async def test_broker_forgets_a_closed_session(secured: Secured) -> None:
    """It may not notice for half a minute that a connection has ended without TLS's goodbye."""
    for _ in range(30):
        async with session(secured.url(), tls_ca=secured.authority):
            pass
    await connected(secured.node, [], "pid")


async def test_client_certificate_instead_of_a_password(secured: Secured) -> None:
    """EXTERNAL: the user is the certificate's common name."""
    files = {"tls_cert": secured.folder / "client.pem", "tls_key": secured.folder / "client.key"}
    async with session(secured.url(user="ignored"), tls_ca=secured.authority, auth="external", **files):
        await connected(secured.node, [["robot", True], ["robot", True]], "user", "ssl")


async def test_external_without_a_certificate_is_refused(secured: Secured) -> None:
    with pytest.raises(AccessDenied, match="ACCESS_REFUSED"):
        await connect(secured.url(), tls_ca=secured.authority, auth="external")


async def test_wrong_files_are_named(secured: Secured) -> None:
    key = secured.folder / "client.key"
    with pytest.raises(ConfigError, match="tls_ca, tls_cert and tls_key"):
        await connect(secured.url(), tls_ca=key)
    with pytest.raises(ConfigError, match="belong together"):
        rpclib.connect(secured.url(), options={"tls_ca": secured.authority, "tls_key": key})


async def test_each_port_explains_the_other_protocol(secured: Secured) -> None:
    plain = secured.node.ports[0]
    with pytest.raises(Unreachable, match="TLS"):
        await connect(f"amqps://localhost:{plain}")
    with pytest.raises(Unreachable, match="expects amqps://"):
        await connect(f"amqp://localhost:{secured.port}")
