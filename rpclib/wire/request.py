"""CALL and CAST."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from rpclib.errors import BadEnvelope, SerializationError
from rpclib.wire import serializer
from rpclib.wire.kinds import CALL, CAST, VERSION

FIELDS: Final = 12
_MAX_BUDGET: Final = 1 << 40
_MAX_REPLY_TO: Final = 255


class Request:
    """A CALL or CAST, made of decoded fields. Raises BadEnvelope.

    ``budget``: seconds that the caller had left when it sent the request, or None. ``deadline``: when they are
    over, by the clock ``now`` of the server. ``wants_answer``: it is a CALL, which has a ``reply_to``.
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
        if len(fields) > FIELDS:
            fields = fields[:FIELDS]
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
