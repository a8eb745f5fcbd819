"""Endpoints: what may be exposed, which one a request means, and what the caller is told otherwise."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import rpclib
from rpclib.serving.endpoints import Endpoints
from rpclib.wire.kinds import CALL
from rpclib.wire.request import Request


def request(method: str, *, namespace: Any = None, version: Any = None, **args: Any) -> Request:
    return Request([1, CALL, b"i" * 16, method, args, None, "r", namespace, version, None, None, 0])


class Compute:
    target = rpclib.Target(version="1.2")

    @rpclib.expose
    async def boot(self, instance_id: str, *, size: int = 1) -> str:
        return f"{instance_id} {size}"

    @rpclib.expose(idempotent=True)
    def snapshot(self, **tags: str) -> dict[str, str]:
        return tags

    @staticmethod
    @rpclib.expose
    def static(a: int) -> int:
        return a

    @classmethod
    @rpclib.expose
    def of_class(cls, a: int) -> str:
        return f"{cls.__name__} {a}"

    def hidden(self) -> None: ...

    @property
    def trap(self) -> None:
        raise AssertionError("a property was read")


def test_what_is_exposed() -> None:
    endpoints = Endpoints([Compute()])
    listed = {(space, version, method.name) for space, version, method in endpoints.methods()}
    assert listed == {(None, "1.2", name) for name in ("boot", "snapshot", "static", "of_class")}
    boot, snapshot = endpoints.find(request("boot", instance_id="i")), endpoints.find(request("snapshot"))
    assert (boot.is_async, boot.idempotent) == (True, False)
    assert (snapshot.is_async, snapshot.idempotent) == (False, True)
    assert snapshot.function(a="b") == {"a": "b"}
    assert endpoints.find(request("static", a=1)).function(a=1) == 1
    assert endpoints.find(request("of_class", a=1)).function(a=1) == "Compute 1"


def test_an_override_is_hidden_unless_it_is_exposed_too() -> None:
    class Own(Compute):
        async def boot(self, instance_id: str, *, size: int = 1) -> str:
            return ""

    endpoints = Endpoints([Own()])
    with pytest.raises(rpclib.NoSuchMethod):
        endpoints.find(request("boot", instance_id="i"))
    endpoints.find(request("snapshot"))


@pytest.mark.parametrize(
    "name", ["hidden", "trap", "__init__", "__class__", "target", "", "boot ", "Boot", "x" * 10**6]
)
def test_what_is_not(name: str) -> None:
    with pytest.raises(rpclib.NoSuchMethod) as caught:
        Endpoints([Compute()]).find(request(name))
    assert len(str(caught.value)) < 400


def test_near_misses_are_named() -> None:
    endpoints = Endpoints([Compute()])
    with pytest.raises(rpclib.NoSuchMethod, match='did you mean "boot"'):
        endpoints.find(request("boost"))
    with pytest.raises(rpclib.NoSuchMethod, match="there is boot, of_class, snapshot, static"):
        endpoints.find(request("zzz"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, r"boot\(instance_id: .*\) -> .*: missing instance_id$"),
        ({"instance_id": 1, "b": 2, "a": 3}, "unexpected a, b$"),
        ({"size": 1, "x": 2}, "missing instance_id; unexpected x$"),
        ({"instance_id": 1, "y" * 10**6: 2}, "unexpected yyy"),
    ],
)
def test_arguments_that_do_not_fit(given: dict[str, Any], told: str) -> None:
    with pytest.raises(rpclib.InvalidArguments, match=told) as caught:
        Endpoints([Compute()]).find(request("boot", **given))
    assert len(str(caught.value)) < 400


def test_any_keyword_fits_where_the_function_takes_any() -> None:
    Endpoints([Compute()]).find(request("snapshot", whatever=1, self=2))


class Two:
    target = rpclib.Target(version="2.1")

    @rpclib.expose
    async def boot(self) -> str:
        return "two"


class Admin:
    target = rpclib.Target(namespace="admin")

    @rpclib.expose
    async def boot(self) -> str:
        return "admin"


def test_versions_and_namespaces_select() -> None:
    one, two, admin = Compute(), Two(), Admin()
    endpoints = Endpoints([one, two, admin])

    def owner(**wanted: Any) -> object:
        args = {"instance_id": "i"} if wanted.get("version") in ("1", "1.0", "1.2", None) else {}
        if wanted.get("namespace"):
            args = {}
        return endpoints.find(request("boot", **wanted, **args)).function.__self__  # type: ignore[attr-defined]

    assert owner() is one
    assert [owner(version=version) for version in ("1", "1.0", "1.2")] == [one] * 3
    assert [owner(version=version) for version in ("2.0", "2.1", "2")] == [two] * 3
    assert owner(namespace="admin", version="1.0") is admin
    for version in ("1.3", "2.2", "3.0", "0.9"):
        with pytest.raises(rpclib.UnsupportedVersion, match=r"implements 1\.2, 2\.1"):
            endpoints.find(request("boot", version=version))
    for version in ("", "x", "1.x", "9" * 10**6):
        with pytest.raises(rpclib.UnsupportedVersion, match="MAJOR") as caught:
            endpoints.find(request("boot", version=version))
        assert len(str(caught.value)) < 400
    for namespace in ("other", "", "x" * 10**6):
        with pytest.raises(rpclib.NoSuchMethod, match="no endpoint of namespace") as missing:
            endpoints.find(request("boot", namespace=namespace))
        assert len(str(missing.value)) < 400


def test_what_callers_make_it_remember_is_bounded() -> None:
    async def method(self: object) -> None: ...

    names = [f"m{number}" for number in range(8)]
    many = type(
        "Many", (), {"target": rpclib.Target(version="1.2"), **{name: rpclib.expose(method) for name in names}}
    )
    endpoints = Endpoints([many()])
    spellings = itertools.product(names, range(9), range(9), (0, 1, 2))
    for count, (name, major, minor, number) in enumerate(spellings):
        endpoints.find(request(name, version=f"{'0' * major}1.{'0' * minor}{number}"))
        with pytest.raises(rpclib.RpcError):
            endpoints.find(request(f"no {count}"))
    assert count > 1500
    assert len(endpoints._found) <= 1000


def bad(*functions: Callable[..., Any]) -> object:
    return type("Bad", (), {function.__name__: rpclib.expose(function) for function in functions})()


def positional(self: object, a: int, /) -> None: ...
def many(self: object, *args: int) -> None: ...
def plain_stream(self: object) -> Iterator[int]:
    yield 1


async def async_stream(self: object) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Endpoints([]), "at least one endpoint"),
        (lambda: Endpoints([object()]), "object exposes nothing"),
        (lambda: Endpoints(Compute()), r"as a list, e\.g\. \[Compute\(\)\]"),  # type: ignore[arg-type]
        (lambda: Endpoints([Compute]), "Compute is a class: pass an instance"),
        (
            lambda: Endpoints([Compute(), Compute()]),
            r"namespace None, version 1\.x expose boot, of_class, snapshot, static",
        ),
        (lambda: Endpoints([bad(positional)]), "positional parameter a"),
        (lambda: Endpoints([bad(many)]), r"positional parameter \*args"),
        (lambda: bad(plain_stream), "plain_stream is a generator"),
        (lambda: bad(async_stream), "async_stream is a generator"),
        (lambda: rpclib.expose(staticmethod(positional)), "not on staticmethod"),
        (lambda: rpclib.expose(Compute), "not on type"),
        (lambda: Endpoints([type("T", (Compute,), {"target": "1.2"})()]), r"T\.target must be a Target"),
    ],
)
def test_bad_definitions_are_told_at_once(make: Callable[[], object], told: str) -> None:
    with pytest.raises(rpclib.ConfigError, match=told):
        make()


def test_two_majors_of_one_method_may_live_together() -> None:
    Endpoints([Compute(), Two()])
