"""RESULT and ERROR."""

from __future__ import annotations

from typing import Any, Final

from rpclib.errors import BadEnvelope
from rpclib.wire import serializer
from rpclib.wire.kinds import ERROR, RESULT, VERSION

RESULT_FIELDS: Final = 5
ERROR_FIELDS: Final = 10


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
        ) = fields[:ERROR_FIELDS]


def encode_result(id: bytes, value: Any) -> bytes:
    """The bytes of a RESULT. Raises SerializationError."""
    return serializer.pack((VERSION, RESULT, id, value, 0))


def encode_error(
    id: bytes, code: str, type: str, message: str, traceback: str, args: list[Any] | None, details: dict[str, Any]
) -> bytes:
    """The bytes of an ERROR. ``args`` rebuild a registered exception; None when they do not serialise."""
    return serializer.pack((VERSION, ERROR, id, code, type, message, traceback, args, details, 0))


def read_failure(fields: list[Any]) -> Failure:
    """The ERROR made of decoded fields. Raises BadEnvelope."""
    if any(type(field) is not str for field in fields[3:7]):
        raise BadEnvelope("an error's code, type, message and traceback are text")
    if fields[7] is not None and type(fields[7]) is not list:
        raise BadEnvelope("an error's args are an array or nil")
    if type(fields[8]) is not dict:
        raise BadEnvelope("an error's details are a map")
    return Failure(fields)
