"""What an endpoint knows about the request it serves, and what its own calls inherit."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from rpclib.errors import RpcError
from rpclib.wire.request import Request


class Context:
    """The request being served.

    ``metadata``: the caller's context, which nested calls inherit. ``caller``: ``host:pid`` of the caller.
    ``method``: the method called. ``id``: the request's id as hex, for logs.
    """

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    @property
    def id(self) -> str:
        return self._request.id.hex()

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def caller(self) -> str | None:
        return self._request.caller

    @property
    def metadata(self) -> Mapping[str, Any]:
        return MappingProxyType(self._request.context or {})

    @property
    def remaining(self) -> float | None:
        """Seconds until the caller stops waiting, never negative; None for a cast, for which nobody waits."""
        deadline = self._request.deadline
        return None if deadline is None else max(0.0, deadline - self._request.now())


current: ContextVar[Request | None] = ContextVar("rpclib_request", default=None)
"""The request being served. A `Context` is made of it when somebody asks, which few endpoints do."""


def current_context() -> Context:
    """The context of the request that the running endpoint serves. Raises RpcError outside one."""
    request = current.get()
    if request is None:
        raise RpcError("current_context() is for endpoints: no request is being served here")
    return Context(request)
