"""Calls in flight: each ends once, by its deadline, with its own error; what a reply may become."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpclib
from rpclib import errors
from rpclib.address import Address, Kind
from rpclib.calling.calls import Call, Calls, rebuild
from rpclib.link.sender import Sender
from rpclib.wire.answer import Failure, Result
from rpclib.wire.kinds import ERROR
from tests.support.links import unconnected

ADDRESS = Address(Kind.ONE, "rpclib", "t")


def call(number: int, seconds: float = 60.0) -> Call:
    loop = asyncio.get_running_loop()
    now = loop.time()
    return Call(
        number.to_bytes(16, "big"),
        Sender(unconnected(), ADDRESS),
        "boot",
        loop.create_future(),
        now,
        now + seconds,
        1.0,
    )


def failure(code: str, *, type: str = "", message: str = "text", args: Any = None, **details: Any) -> Failure:
    return Failure([1, ERROR, b"i" * 16, code, type, message, "Traceback", args, details, 0])


async def test_a_reply_finds_its_call_once() -> None:
    calls = Calls(unconnected())
    one, two = call(1), call(2)
    calls.add(one)
    calls.add(two)
    calls.resolve(Result(two.id, "two"))
    calls.resolve(Result(two.id, "again"))
    calls.resolve(failure("TIMEOUT"))
    assert (await two.future, one.future.done(), calls.late) == ("two", False, 2)
    for each in (one, two, two):
        calls.remove(each)
    assert not calls.table
    calls.resolve(Result(one.id, None))
    assert calls.late == 3


async def test_each_ends_at_its_deadline() -> None:
    calls = Calls(unconnected())
    early, late = call(1, 0.05), call(2)
    calls.add(early)
    calls.add(late)
    with pytest.raises(rpclib.CallTimeout, match=r'no reply from boot on "t" in exchange "rpclib" within 0\.\d s'):
        await asyncio.wait_for(early.future, 5)
    assert not late.future.done()
    calls.remove(early)
    calls.remove(late)
    assert not calls.table


async def test_one_that_came_back_says_so_at_its_deadline() -> None:
    calls = Calls(unconnected())
    lonely = call(1, 0.01)
    lonely.returned = rpclib.NoServer("nobody", maybe_executed=False)
    calls.add(lonely)
    with pytest.raises(rpclib.NoServer) as caught:
        await asyncio.wait_for(lonely.future, 5)
    assert caught.value.maybe_executed is False
    calls.remove(lonely)


async def test_all_fail_with_an_error_of_their_own() -> None:
    calls = Calls(unconnected())
    each = [call(number) for number in range(3)]
    for one in each:
        calls.add(one)
    each[0].future.set_result("before")
    calls.fail_sent(rpclib.ConnectionLost("gone", maybe_executed=True))
    calls.close(rpclib.TransportClosed("closed"))
    assert await each[0].future == "before"
    caught = [one.future.exception() for one in each[1:]]
    assert caught[0] is not caught[1]
    for error in caught:
        assert isinstance(error, rpclib.ConnectionLost)
        assert error.maybe_executed
        assert "gone (while waiting for boot" in str(error)
    last = call(9)
    calls.add(last)
    calls.close(rpclib.TransportClosed("closed"))
    assert isinstance(last.future.exception(), rpclib.TransportClosed)
    for one in [*each, last]:
        calls.remove(one)
    assert not calls.table


# What a caller sees for an ERROR envelope.


class Mine(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


class Fragile(Exception):
    def __init__(self) -> None:
        raise RuntimeError("cannot be built")


class NoException(Exception):
    def __new__(cls, *args: Any) -> Any:
        return 5


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "REGISTERED", {cls.__name__: cls for cls in (Mine, Fragile, NoException)})


def test_errors_of_rpclib_keep_their_class() -> None:
    for code in ("NO_SUCH_METHOD", "INVALID_ARGUMENTS", "UNSUPPORTED_VERSION", "ACCESS_DENIED", "SERIALIZATION"):
        error = rebuild(failure(code))
        assert type(error) is errors.by_code(code)
        assert str(error) == "text"


@pytest.mark.parametrize("code", ["NO_SERVER", "WORKER_LOST", "CONNECTION_LOST"])
@pytest.mark.parametrize(("details", "expected"), [({}, True), ({"maybe_executed": False}, False)])
def test_maybe_executed_is_true_unless_denied(code: str, details: dict[str, Any], expected: bool) -> None:
    for odd in (details, {**details, "newer": 1}):
        error = rebuild(failure(code, **odd))
        assert isinstance(error, errors.MaybeExecuted)
        assert error.maybe_executed is expected
    assert rebuild(failure(code, maybe_executed=None)).maybe_executed is True  # type: ignore[attr-defined]


@pytest.mark.parametrize("code", ["", "NEWER", "RPC_ERROR", "code"])
def test_an_unknown_code_is_a_remote_error_of_that_name(code: str) -> None:
    error = rebuild(failure(code))
    assert isinstance(error, rpclib.RemoteError)
    assert (error.type, error.message) == (code, "text")


def test_registered_ones_are_rebuilt() -> None:
    error = rebuild(failure("REMOTE", type="Mine", args=[1, 2]))
    assert type(error) is Mine
    assert error.args == (1, 2)
    assert isinstance(error.__cause__, rpclib.RemoteError)
    assert error.__cause__.traceback == "Traceback"


@pytest.mark.parametrize(
    ("type", "args"),
    [
        ("Mine", None),
        ("Mine", []),
        ("Mine", [1, 2, 3]),
        ("Fragile", []),
        ("NoException", []),
        ("builtins.SystemExit", [1]),
        ("builtins.ValueError", ["x"]),
        ("os.system", ["true"]),
        ("", []),
    ],
)
def test_everything_else_is_a_remote_error(type: str, args: Any) -> None:
    error = rebuild(failure("REMOTE", type=type, args=args))
    assert isinstance(error, rpclib.RemoteError)
    assert (error.type, error.message, error.traceback) == (type, "text", "Traceback")
