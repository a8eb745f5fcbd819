"""Errors: typed, on the side that can act on them, and never the end of a server."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

import rpclib
from rpclib.address import Address
from rpclib.conformance.harness import Harness
from rpclib.conformance.service import Refused, Service
from rpclib.testing.inside import inside


async def test_remote_exception_is_a_remote_error(harness: Harness) -> None:
    """An endpoint's exception arrives as RemoteError: its type, its message, the server's traceback."""
    async with harness.connect() as rpc, rpc.server("t", [Service()]):
        with pytest.raises(rpclib.RemoteError) as caught:
            await rpc.client("t").call("fail")
        assert caught.value.type.endswith("service.Stranger")
        assert caught.value.message == "no"
        assert "in fail" in caught.value.traceback


async def test_registered_exception_keeps_its_class(harness: Harness) -> None:
    """An exception registered with `rpclib.remote_error` arrives as itself, caused by the RemoteError."""
    async with harness.connect() as rpc, rpc.server("t", [Service()]):
        with pytest.raises(Refused) as caught:
            await rpc.client("t").call("fail", registered=True)
        assert caught.value.args == ("no", 7)
        assert isinstance(caught.value.__cause__, rpclib.RemoteError)


async def test_unknown_method_is_told(harness: Harness) -> None:
    """NoSuchMethod names the near miss; methods that are not exposed, or special, do not exist for callers."""
    async with harness.connect() as rpc, rpc.server("t", [Service()]):
        client = rpc.client("t")
        with pytest.raises(rpclib.NoSuchMethod, match='did you mean "echo"'):
            await client.call("ehco", value=1)
        for method in ("hidden", "__init__", "_x", "seen", "", "echo.__call__"):
            with pytest.raises(rpclib.NoSuchMethod):
                await client.call(method)


async def test_wrong_arguments_are_named(harness: Harness) -> None:
    """Missing and unexpected arguments are named, and the endpoint does not run."""
    service = Service()
    async with harness.connect() as rpc, rpc.server("t", [service]):
        with pytest.raises(rpclib.InvalidArguments, match=r"missing value; unexpected other, walue"):
            await rpc.client("t").call("note", walue=1, other=2)
    assert service.seen == []


async def test_version_is_negotiated(harness: Harness) -> None:
    """Equal major and at most the implemented minor; namespaces select endpoints."""

    class New(Service):
        target = rpclib.Target(version="2.0", namespace="admin")

    async with harness.connect() as rpc, rpc.server("t", [Service("old"), New("new")]):
        client = rpc.client("t")
        for version in ("1.0", "1.2", "1"):
            assert await client.prepare(version=version).call("who") == "old"
        for version in ("1.3", "2.0"):
            with pytest.raises(rpclib.UnsupportedVersion, match=r"implements 1\.2"):
                await client.prepare(version=version).call("who")
        assert await client.prepare(namespace="admin", version="2.0").call("who") == "new"
        with pytest.raises(rpclib.NoSuchMethod):
            await client.prepare(namespace="other").call("who")
        with pytest.raises(rpclib.UnsupportedVersion):
            client.prepare(version="1.2", version_cap="1.1")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (object(), "object"),
        (2**64, "64 bits"),
        (dt.datetime(2020, 1, 1), "time zone"),
        ({"a": {(1, 2): 3}}, r"key \(1, 2\)"),
        ("\ud800", "Unicode"),
        ({frozenset({1})}, "set"),
    ],
    ids=["object", "big-int", "naive-datetime", "tuple-key", "surrogate", "set-of-sets"],
)
async def test_unserialisable_argument_stops_at_the_caller(harness: Harness, value: Any, named: str) -> None:
    """SerializationError names the argument and the reason, before anything is sent."""
    service = Service()
    async with harness.connect() as rpc, rpc.server("t", [service]):
        client = rpc.client("t")
        for send in (client.call, client.cast, client.fanout):
            with pytest.raises(rpclib.SerializationError, match=named):
                await send("note", value=value)
        nested: list[Any] = []
        for _ in range(1000):
            nested = [nested]
        with pytest.raises(rpclib.SerializationError, match="deeper"):
            await client.call("note", value=nested)
        await client.call("note", value="ok")
    assert service.seen == ["ok"]


async def test_unserialisable_result_is_told(harness: Harness) -> None:
    """The caller of an endpoint whose result cannot travel gets a typed error, not silence."""
    async with harness.connect() as rpc, rpc.server("t", [Service("ok")]):
        with pytest.raises(rpclib.SerializationError, match="result of odd"):
            await rpc.client("t").call("odd")
        assert await rpc.client("t").call("who") == "ok"


async def test_oversize_stops_at_the_caller(harness: Harness) -> None:
    """What exceeds the limit raises MessageTooLarge before it is sent; a result too large is told."""
    async with harness.connect() as rpc, rpc.server("t", [Service("ok")]):
        client = rpc.client("t")
        with pytest.raises(rpclib.MessageTooLarge, match="note"):
            await client.call("note", value=b"x" * inside(rpc).link.max_body)
        with pytest.raises(rpclib.MessageTooLarge, match="result of long"):
            await client.call("long", size=inside(rpc).link.max_body)
        assert await client.call("who") == "ok"


async def test_garbage_does_not_stop_a_server(harness: Harness) -> None:
    """Bytes that are no envelope, and envelopes of another version, are counted and dropped; work goes on."""
    async with harness.connect() as rpc, rpc.server("t", [Service("ok")]):
        driver, key = inside(rpc).connection.driver, inside(rpc).link.inbox.key
        assert driver is not None
        assert key is not None
        bodies = [b"", b"\xc1", b"\x93\x02\x01\xc4\x00", b"GET / HTTP/1.1", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000]
        for body in bodies:
            driver.send(driver.route(harness.one("t")), body, 5)
            driver.send(driver.route(Address.inbox(key)), body, 5)
        await harness.until(lambda: rpc.counters.bad_envelopes == 2 * len(bodies), "all garbage counted")
        assert await rpc.client("t").call("who") == "ok"
