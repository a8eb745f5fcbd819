"""Asking the management plugin: what stands in its place, and TLS."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rpclib.errors import AccessDenied, Unreachable
from rpclib.url import TransportURL
from rpclib_amqp import AmqpOptions, management
from rpclib_amqp.management import Management
from tests.drivers.amqp.test_tls import certificate


class Web:
    """A server that gives everyone the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked = b""
        self.port = 0
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            if not self.answer:
                await reader.read()  # until the client gives up
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.done.set()


@asynccontextmanager
async def web(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Web]:
    made = Web(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
        await asyncio.wait_for(made.done.wait(), 10)


async def ask(place: str, url: str = "amqp://nova:pässword@broker/", **options: Path) -> object:
    return await Management(TransportURL.parse(url), AmqpOptions(management=place, **options)).get("a/b", "c")


async def test_asks_as_the_user_and_understands_chunks() -> None:
    async with web(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    ) as server:
        assert await ask(f"http://127.0.0.1:{server.port}/behind/") == [1, 2]
    assert server.asked.startswith(b"GET /behind/api/a%2Fb/c HTTP/1.1\r\n")
    secret = base64.b64encode("nova:pässword".encode())
    assert b"\r\nAuthorization: Basic " + secret + b"\r\n" in server.asked


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"AMQP\x00\x00\x09\x01", "its answer is not HTTP"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n{}", "it answered 404 Not Found"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "its answer is not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", "its answer is not HTTP"),
        (b"", "no answer within 0.2 s"),
    ],
)
async def test_what_is_not_the_plugin_is_told(answer: bytes, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(management, "ANSWER_WITHIN", 0.2)
    async with web(answer) as server:
        place = f"http://127.0.0.1:{server.port}"
        with pytest.raises(Unreachable) as caught:
            await ask(place)
    assert str(caught.value).startswith(f"no list of queues from {place} ({reason}): enable the plugin there")


async def test_tls_is_verified(tmp_path: Path) -> None:
    certificate(tmp_path, "ca", "test authority")
    certificate(tmp_path, "web", "localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "web.pem", tmp_path / "web.key")
    async with web(b"HTTP/1.1 200 OK\r\n\r\n[]", tls) as server:
        place, url = f"https://127.0.0.1:{server.port}", "amqps://nova:secret@broker/"
        with pytest.raises(Unreachable, match="unable to get local issuer certificate"):
            await ask(place, url)
        assert server.asked == b""
        assert await ask(place, url, tls_ca=tmp_path / "ca.pem") == []


async def test_a_certificate_alone_does_not_do() -> None:
    url, options = TransportURL.parse("amqps://broker/"), AmqpOptions(auth="external")
    with pytest.raises(AccessDenied, match="needs a user and a password"):
        await Management(url, options).get("x")


@pytest.mark.parametrize(
    ("url", "place"),
    [("amqp://h:1/", "http://h:15672"), ("amqps://h/", "https://h:15671"), ("amqp://[::1]/", "http://[::1]:15672")],
)
def test_where_it_is_looked_for(url: str, place: str) -> None:
    assert Management(TransportURL.parse(url), AmqpOptions()).base == place


@pytest.mark.parametrize(
    "text", ["15672", "ftp://h", "http://", "http://u:hunter2@h", "http://h:x", "http://h?a=b"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        AmqpOptions(management=text)
