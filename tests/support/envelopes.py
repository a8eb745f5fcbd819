"""Requests as bytes, with every field at hand."""

from __future__ import annotations

from typing import Any

from rpclib.wire.kinds import CALL
from rpclib.wire.request import encode_call, encode_cast


def encode_request(
    kind: int,
    id: bytes,
    method: str,
    args: dict[str, Any],
    budget: float | None = None,
    reply_to: str | None = None,
    namespace: str | None = None,
    version: str | None = None,
    context: dict[str, Any] | None = None,
    caller: str | None = None,
) -> bytes:
    """A CALL or CAST."""
    meta = (namespace, version, context, caller, 0)
    if kind == CALL:
        assert budget is not None
        return encode_call(id, method, args, budget, reply_to, meta)
    return encode_cast(id, method, args, meta)
