"""The envelope: one versioned msgpack array, the same bytes on every driver.

Specified in docs/reference/envelope.md.
Fields that a later version appends are ignored by this one; a version it does not know is BadEnvelope.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from rpclib.errors import BadEnvelope, SerializationError
from rpclib.wire import serializer

VERSION: Final = 1
MAX_BODY: Final = 16 * 1024 * 1024

CALL: Final = 1
CAST: Final = 2
RESULT: Final = 3
ERROR: Final = 4
# 5 to 9 are reserved: ITEM, END, CANCEL, CREDIT, ACCEPTED.
ALIVE: Final = 10

ID_LENGTH: Final = 16
_REQUESTS = (CALL, CAST)
_REQUEST_FIELDS = 12
_RESULT_FIELDS = 5
_ERROR_FIELDS = 10
_MAX_BUDGET: Final = 1 << 40
_MAX_REPLY_TO: Final = 255


class Request:
    """A CALL or CAST, made of decoded fields. Raises BadEnvelope.

    ``budget``: seconds that the caller had left when it sent the request, or None. ``deadline``: when they are
    over, by the clock ``now`` of whoever serves it. ``wants_answer``: it is a CALL, which has a ``reply_to``.
    """

    __slots__ = (
        "args",
        "budget",
        "caller",
        "context",
        "deadline",
        "id",
        "kind",
        "method",
        "namespace",
        "now",
        "reply_to",
        "version",
        "wants_answer",
    )

    def __init__(self, fields: list[Any]) -> None:
        if len(fields) > _REQUEST_FIELDS:
            fields = fields[:_REQUEST_FIELDS]
        _, kind, ident, method, args, budget, reply_to, namespace, version, context, caller, _credit = fields
        if type(method) is not str or type(args) is not dict:
            raise BadEnvelope("a request needs a method name and a map of arguments")
        for key in args:
            if type(key) is not str:
                raise BadEnvelope("an argument's name is not text")
        if budget is not None and (type(budget) is not int or not 0 <= budget < _MAX_BUDGET):
            raise BadEnvelope("a request's budget is a number of milliseconds")
        if context is not None and type(context) is not dict:
            raise BadEnvelope("a request's context is a map")
        if (
            (reply_to is not None and type(reply_to) is not str)
            or (namespace is not None and type(namespace) is not str)
            or (version is not None and type(version) is not str)
            or (caller is not None and type(caller) is not str)
        ):
            raise BadEnvelope("a request's reply_to, namespace, version and caller are text or nil")
        if reply_to:
            if len(reply_to) > _MAX_REPLY_TO or not reply_to.isascii():
                raise BadEnvelope("a request's reply_to is at most 255 ASCII characters")
        elif kind == CALL:
            raise BadEnvelope("a call without reply_to")
        self.kind: int = kind
        self.id: bytes = ident
        self.method: str = method
        self.args: dict[str, Any] = args
        self.budget: float | None = None if budget is None else budget / 1000
        self.deadline: float | None = None
        self.now: Callable[[], float] = monotonic
        self.wants_answer: bool = kind == CALL
        self.reply_to: str | None = reply_to if kind == CALL else None
        self.namespace: str | None = namespace
        self.version: str | None = version
        self.context: dict[str, Any] | None = context
        self.caller: str | None = caller


class Result:
    """A decoded RESULT: what the endpoint returned."""

    __slots__ = ("id", "value")

    def __init__(self, id: bytes, value: Any) -> None:
        self.id = id
        self.value = value


class Failure:
    """A decoded ERROR: ``code`` of rpclib.errors, and for an endpoint's exception its type, args, traceback."""

    __slots__ = ("args", "code", "details", "id", "message", "traceback", "type")

    def __init__(self, fields: list[Any]) -> None:
        (
            _,
            _,
            self.id,
            self.code,
            self.type,
            self.message,
            self.traceback,
            self.args,
            self.details,
            _seq,
        ) = fields[:_ERROR_FIELDS]


class Alive:
    """A decoded ALIVE: a message of a process to its own inbox, which proves the way there and back."""

    __slots__ = ("id",)

    def __init__(self, id: bytes) -> None:
        self.id = id


Meta = tuple[str | None, str | None, dict[str, Any] | None, str | None, int]
"""The fields of a request that stay the same for a client: namespace, version, context, caller, credit."""


def encode_call(
    id: bytes, method: str, args: dict[str, Any], budget: float, reply_to: str | None, meta: Meta
) -> bytes:
    """The bytes of a CALL. ``budget`` in seconds. Raises SerializationError."""
    try:
        return serializer.pack((VERSION, CALL, id, method, args, max(1, int(budget * 1000)), reply_to, *meta))
    except SerializationError as error:
        raise SerializationError(f"arguments of {method}: {error}") from None


def encode_cast(id: bytes, method: str, args: dict[str, Any], meta: Meta) -> bytes:
    """The bytes of a CAST. Raises SerializationError."""
    try:
        return serializer.pack((VERSION, CAST, id, method, args, None, None, *meta))
    except SerializationError as error:
        raise SerializationError(f"arguments of {method}: {error}") from None


def encode_again(request: Request, budget: float | None, reply_to: str | None) -> bytes:
    """The bytes of a decoded request, with the budget that is left. Raises SerializationError."""
    meta: Meta = (request.namespace, request.version, request.context, request.caller, 0)
    left = None if budget is None else max(1, int(budget * 1000))
    return serializer.pack((VERSION, request.kind, request.id, request.method, request.args, left, reply_to, *meta))


def encode_result(id: bytes, value: Any) -> bytes:
    """The bytes of a RESULT. Raises SerializationError."""
    return serializer.pack((VERSION, RESULT, id, value, 0))


def encode_error(
    id: bytes, code: str, type: str, message: str, traceback: str, args: list[Any] | None, details: dict[str, Any]
) -> bytes:
    """The bytes of an ERROR. ``args`` rebuild a registered exception; None when they do not serialise."""
    return serializer.pack((VERSION, ERROR, id, code, type, message, traceback, args, details, 0))


def encode_alive(id: bytes) -> bytes:
    return serializer.pack((VERSION, ALIVE, id))


def decode(body: bytes) -> Request | Result | Failure | Alive:
    """Read any envelope. Raises BadEnvelope, and nothing else, for bytes that are none of this version."""
    try:
        fields = serializer.unpack(body)
    except ValueError as error:
        raise BadEnvelope(f"not an envelope: {error}") from None
    if type(fields) is not list or len(fields) < 3:
        raise BadEnvelope("not an envelope: no array of at least three fields")
    version, kind, ident = fields[0], fields[1], fields[2]
    if type(version) is not int or type(kind) is not int:
        raise BadEnvelope("not an envelope: its version and kind are no numbers")
    if version != VERSION:
        raise BadEnvelope(f"envelope version {version} is unknown here; this side speaks {VERSION}")
    if type(ident) is not bytes or len(ident) != ID_LENGTH:
        raise BadEnvelope(f"the id of an envelope is {ID_LENGTH} bytes")
    if kind == RESULT:
        if len(fields) >= _RESULT_FIELDS:
            return Result(ident, fields[3])
    elif kind in _REQUESTS:
        if len(fields) >= _REQUEST_FIELDS:
            return Request(fields)
    elif kind == ERROR:
        if len(fields) >= _ERROR_FIELDS:
            return _failure(fields)
    elif kind == ALIVE:
        return Alive(ident)
    raise BadEnvelope(f"envelope kind {kind} with {len(fields)} fields is unknown here")


def _failure(fields: list[Any]) -> Failure:
    if any(type(field) is not str for field in fields[3:7]):
        raise BadEnvelope("an error's code, type, message and traceback are text")
    if fields[7] is not None and type(fields[7]) is not list:
        raise BadEnvelope("an error's args are an array or nil")
    if type(fields[8]) is not dict:
        raise BadEnvelope("an error's details are a map")
    return Failure(fields)
