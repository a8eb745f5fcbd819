"""Errors: one root, a code each that never changes, and what travels."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import rpclib
from rpclib import errors

CODES = {
    "RpcError": "RPC_ERROR",
    "ConfigError": "CONFIG",
    "DriverNotFound": "DRIVER_NOT_FOUND",
    "DriverUnavailable": "DRIVER_UNAVAILABLE",
    "CapabilityMissing": "CAPABILITY_MISSING",
    "SerializationError": "SERIALIZATION",
    "BadEnvelope": "BAD_ENVELOPE",
    "TransportError": "TRANSPORT",
    "Unreachable": "UNREACHABLE",
    "AccessDenied": "ACCESS_DENIED",
    "ConnectionLost": "CONNECTION_LOST",
    "NoServer": "NO_SERVER",
    "WorkerLost": "WORKER_LOST",
    "MessageTooLarge": "MESSAGE_TOO_LARGE",
    "Overloaded": "OVERLOADED",
    "ForkError": "FORK",
    "TransportClosed": "CLOSED",
    "CallTimeout": "TIMEOUT",
    "NoSuchMethod": "NO_SUCH_METHOD",
    "UnsupportedVersion": "UNSUPPORTED_VERSION",
    "InvalidArguments": "INVALID_ARGUMENTS",
    "RemoteError": "REMOTE",
}


def classes(root: type[errors.RpcError]) -> set[type[errors.RpcError]]:
    return {root}.union(*(classes(sub) for sub in root.__subclasses__() if sub.__module__ == "rpclib.errors"))


def test_codes_never_change() -> None:
    found = {cls.__name__: cls.code for cls in classes(errors.RpcError) if cls is not errors.MaybeExecuted}
    assert found == CODES
    assert errors.MaybeExecuted.code == "TRANSPORT"
    for name, code in CODES.items():
        assert errors.by_code(code) is getattr(errors, name)
        assert getattr(rpclib, name) is getattr(errors, name)
    assert errors.by_code("SOMETHING_NEWER") is None


def test_a_timeout_is_also_a_timeout_error() -> None:
    assert issubclass(rpclib.CallTimeout, TimeoutError)


def test_maybe_executed() -> None:
    for cls in (rpclib.ConnectionLost, rpclib.NoServer, rpclib.WorkerLost):
        assert cls("x").maybe_executed is False
        assert cls("x", maybe_executed=True).maybe_executed is True
        assert errors.details_of(cls("x", maybe_executed=True)) == {"maybe_executed": True}
        assert str(cls("text", maybe_executed=True)) == "text"
    assert errors.details_of(rpclib.Overloaded("x")) == {}


def test_a_remote_error_reads_well() -> None:
    error = rpclib.RemoteError("app.Refused", "no", "Traceback")
    assert str(error) == "app.Refused: no"
    assert (error.type, error.message, error.traceback) == ("app.Refused", "no", "Traceback")
    back = pickle.loads(pickle.dumps(error))
    assert (back.type, back.message, back.traceback) == ("app.Refused", "no", "Traceback")


def test_registering() -> None:
    @errors.remote_error
    class Mine(Exception):
        pass

    name = errors.type_name(Mine)
    assert name == f"{__name__}.test_registering.<locals>.Mine"
    assert errors.REGISTERED.pop(name) is Mine


@pytest.mark.parametrize("wrong", [SystemExit, BaseException, StopIteration, int, "Mine", None, ValueError("x")])
def test_only_exceptions_can_be_registered(wrong: Any) -> None:
    before = dict(errors.REGISTERED)
    with pytest.raises(rpclib.ConfigError, match="remote_error"):
        errors.remote_error(wrong)
    assert before == errors.REGISTERED
