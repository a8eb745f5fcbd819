"""Opening a session: every way it fails is quick, typed, clear and without a trace."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import pydantic
import pytest

import rpclib
from rpclib.errors import AccessDenied, ConfigError, TransportError, Unreachable
from rpclib.testing.waiting import tap
from rpclib_amqp import AmqpOptions
from tests.drivers.amqp.session import connect, connected, inbox, session
from tests.support.rabbit import PASSWORD, Rabbit


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[str]:
    """The URL of something that accepts, says ``answer`` and hangs up; with None it says nothing at all."""
    hold = asyncio.Event()
    serving: set[asyncio.Task[object]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
        if answer is None:
            await hold.wait()
        else:
            await reader.read(8)
            writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"amqp://u:{quote(PASSWORD)}@127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        hold.set()
        listening.close()
        await asyncio.wait(serving)


async def refused(
    url: str, error: type[TransportError], *words: str, within: float = 2.0, **options: object
) -> None:
    """Opening fails with ``error``, whose text has ``words``, within seconds, and never shows the password."""
    began = time.monotonic()
    with pytest.raises(error) as caught:
        await connect(url, **options)
    assert time.monotonic() - began < within
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    chain: BaseException | None = caught.value
    while chain is not None:
        assert PASSWORD not in f"{chain}{chain!r}{chain.args}"
        chain = chain.__cause__ or chain.__context__


async def test_wrong_password(rabbit: Rabbit) -> None:
    await refused(rabbit.url.replace("@", "-not@"), AccessDenied, "ACCESS_REFUSED")


async def test_unknown_vhost(rabbit: Rabbit) -> None:
    await refused(rabbit.url + "nope", AccessDenied, "nope")


async def test_forbidden_vhost(rabbit: Rabbit) -> None:
    """An existing vhost without permissions for this user."""
    await rabbit.ctl("add_vhost", "theirs")
    try:
        await refused(rabbit.url + "theirs", AccessDenied, "theirs", "refused")
    finally:
        await rabbit.ctl("delete_vhost", "theirs")


async def test_vhost_from_the_path(rabbit: Rabbit) -> None:
    """No path and a bare slash are the vhost "/"; another vhost is another world."""
    await rabbit.ctl("add_vhost", "a/b")
    await rabbit.ctl("set_permissions", "--vhost", "a/b", "rpclib", ".*", ".*", ".*")
    try:
        async with session(rabbit.url.rstrip("/")), session(rabbit.url), session(rabbit.url + "a%2Fb"):
            await connected(rabbit, [["/"]] * 4 + [["a/b"]] * 2, "vhost")
    finally:
        await rabbit.ctl("delete_vhost", "a/b")


async def test_unresolvable_host() -> None:
    await refused("amqp://no-such-host.invalid", Unreachable, "resolved", within=6)


async def test_refused_port() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        await refused(f"amqp://127.0.0.1:{bound.getsockname()[1]}", Unreachable, "127.0.0.1")


async def test_silent_server() -> None:
    async with server(None) as url:
        await refused(url, Unreachable, "no answer within 0.3 s", handshake_timeout=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"AMQP\x00\x01\x00\x00",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x01" * 99,
    ],
    ids=["eof", "http", "amqp 1.0", "tls alert", "garbage"],
)
async def test_not_a_broker(answer: bytes) -> None:
    async with server(answer) as url:
        await refused(url, Unreachable, handshake_timeout=1)


async def test_hanging_broker_is_given_up(rabbit: Rabbit) -> None:
    """A stopped process whose kernel still accepts connections."""
    with rabbit.suspended():
        await refused(rabbit.url, Unreachable, "no answer within 0.5 s", handshake_timeout=0.5)
    async with session(rabbit.url):
        pass


def test_tls_options_without_tls_are_refused(amqp_url: str) -> None:
    """Otherwise someone believes to be protected."""
    for options in ({"tls_ca": __file__}, {"auth": "external"}):
        with pytest.raises(ConfigError, match="amqps://"):
            rpclib.connect(amqp_url, options=options)


def test_unknown_options_are_errors() -> None:
    with pytest.raises(pydantic.ValidationError, match="hartbeat"):
        AmqpOptions(hartbeat=10)  # type: ignore[call-arg]


async def test_cancelled_open_leaves_nothing(rabbit: Rabbit) -> None:
    """Cancelled at any turn: no connection, no socket, no task."""
    for turns in range(0, 80, 4):
        task = asyncio.create_task(connect(rabbit.url))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        for done in await asyncio.gather(task, return_exceptions=True):
            if not isinstance(done, BaseException):
                await done[0].close()
    gc.collect()  # an unclosed transport would warn, and a warning is an error
    while await rabbit.list("connections", "pid"):
        await asyncio.sleep(0.05)


async def test_the_password_shows_nowhere(rabbit: Rabbit, exchange: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not in any repr, nor in any log line, of ours or of pika, at any level."""
    caplog.set_level(logging.DEBUG)
    async with session(rabbit.url) as (driver, events):
        await tap(driver, inbox(exchange), prefetch=0)
        seen = [repr(driver), repr(vars(driver)), repr(driver._publishing.params), str(driver._publishing)]
        await rabbit.ctl("close_all_connections", "test")
        while not events.losses:
            await asyncio.sleep(0.01)
        seen.append(repr(events.losses))
    await refused(rabbit.url.replace("@", "-not@"), AccessDenied)
    for text in [*seen, *(record.getMessage() for record in caplog.records), caplog.text]:
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text
