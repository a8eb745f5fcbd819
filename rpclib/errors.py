"""Every error rpclib raises. One root, one stable ``code`` each.

Codes are part of the wire format (docs/reference/envelope.md) and of the CLI's JSON output: they never change.
Messages name the target, the driver, the time spent and what to do next, and never a secret.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar


class RpcError(Exception):
    """Root of all errors of rpclib."""

    code: ClassVar[str] = "RPC_ERROR"
    travels: ClassVar[bool] = False
    """True: raised by an endpoint, it reaches the caller as this class, not as RemoteError."""


class ConfigError(RpcError):
    """A URL, option, name or argument of the program itself is wrong. Raised before anything is sent."""

    code = "CONFIG"


class DriverNotFound(ConfigError):
    """No installed driver claims the URL's scheme."""

    code = "DRIVER_NOT_FOUND"


class DriverUnavailable(ConfigError):
    """A driver claims the scheme but cannot be used: its SDK is missing, it is broken, or of another SPI."""

    code = "DRIVER_UNAVAILABLE"


class CapabilityMissing(ConfigError):
    """``connect(require=...)`` asked for something this driver does not do."""

    code = "CAPABILITY_MISSING"


class SerializationError(RpcError):
    """A value is not one of the types that round-trip on every driver (docs/reference/envelope.md)."""

    code = "SERIALIZATION"
    travels = True


class BadEnvelope(RpcError):
    """Received bytes are not an rpclib message, or one of an unknown version."""

    code = "BAD_ENVELOPE"


class TransportError(RpcError):
    """The backend could not do it. The only errors a driver may raise."""

    code = "TRANSPORT"


class Unreachable(TransportError):
    """No host of the URL could be used; the message gives each host's reason."""

    code = "UNREACHABLE"


class AccessDenied(TransportError):
    """The backend refused the credentials or the operation, or an endpoint refused the caller."""

    code = "ACCESS_DENIED"
    travels = True


class MaybeExecuted(TransportError):
    """Shared by errors that end a call which may already be running.

    ``maybe_executed`` False promises that no endpoint saw the request; True promises nothing.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed


class ConnectionLost(MaybeExecuted):
    """The session with the backend ended."""

    code = "CONNECTION_LOST"


class NoServer(MaybeExecuted):
    """Nobody serves the address."""

    code = "NO_SERVER"


class WorkerLost(MaybeExecuted):
    """The worker that had taken the call went away before it answered."""

    code = "WORKER_LOST"


class MessageTooLarge(TransportError):
    """The envelope exceeds the size limit of rpclib or of the driver."""

    code = "MESSAGE_TOO_LARGE"
    travels = True


class Overloaded(TransportError):
    """There was no room in a bounded buffer until the deadline."""

    code = "OVERLOADED"


class ForkError(TransportError):
    """An async transport was used in a process forked from the one that opened it."""

    code = "FORK"


class TransportClosed(TransportError):
    """The transport, client or server was closed by the program."""

    code = "CLOSED"


class CallTimeout(RpcError, TimeoutError):
    """The deadline passed before the reply came. The work may or may not have run."""

    code = "TIMEOUT"


class NoSuchMethod(RpcError):
    """The server exposes no such method in that namespace."""

    code = "NO_SUCH_METHOD"
    travels = True


class UnsupportedVersion(RpcError):
    """No endpoint there implements the requested version, or the request exceeds ``version_cap``."""

    code = "UNSUPPORTED_VERSION"
    travels = True


class InvalidArguments(RpcError):
    """The arguments do not fit the method; the message names them."""

    code = "INVALID_ARGUMENTS"
    travels = True


class RemoteError(RpcError):
    """The endpoint raised. ``type`` is its class (``module.Class``), ``traceback`` the server's text."""

    code = "REMOTE"

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(type, message, traceback)
        self.type = type
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


REGISTERED: dict[str, type[Exception]] = {}


def type_name(cls: type[BaseException]) -> str:
    """The name a class travels under: ``module.QualName``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def remote_error(cls: type[Exception]) -> type[Exception]:
    """Class decorator: rebuild this exception at the caller when an endpoint raised it.

    It is rebuilt as ``cls(*args)`` with the args that serialise; a class that cannot be built that way
    arrives as RemoteError. Both sides must have registered it: nothing is imported because the wire said so.
    (The opt-in registry is nameko's idea.)
    """
    if not (isinstance(cls, type) and issubclass(cls, Exception)) or issubclass(cls, StopIteration):
        raise ConfigError(f"@remote_error goes on classes of exceptions, not on {cls!r}")
    REGISTERED[type_name(cls)] = cls
    return cls


def by_code(code: str) -> type[RpcError] | None:
    """The error class that carries ``code``, or None for a code of a newer version."""
    return _BY_CODE.get(code)


def _collect(cls: type[RpcError]) -> dict[str, type[RpcError]]:
    found = {cls.code: cls} if "code" in vars(cls) else {}
    for sub in cls.__subclasses__():
        found.update(_collect(sub))
    return found


_BY_CODE: dict[str, type[RpcError]] = _collect(RpcError)


_Error = TypeVar("_Error", bound=TransportError)


def again(error: _Error, text: str | None = None) -> _Error:
    """The same error as a new object: of its class, with its ``maybe_executed`` and its text, or another one.

    One object raised in several tasks, or twice, gathers the tracebacks of all of them.
    """
    made = type(error)(str(error) if text is None else text)
    if isinstance(error, MaybeExecuted) and isinstance(made, MaybeExecuted):
        made.maybe_executed = error.maybe_executed
    return made


def details_of(error: RpcError) -> dict[str, Any]:
    """The machine-readable extras of an error that travel beside its message."""
    if isinstance(error, MaybeExecuted):
        return {"maybe_executed": error.maybe_executed}
    return {}
