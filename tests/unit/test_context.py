"""The context of a request."""

from __future__ import annotations

from time import monotonic

import pytest

import rpclib
from rpclib.context import Context, current
from tests.support.asking import request


def test_outside_a_request_there_is_none() -> None:
    with pytest.raises(rpclib.RpcError, match="no request is being served"):
        rpclib.current_context()


def test_what_it_tells() -> None:
    token = current.set(request(monotonic() + 5, context={"trace": "abc"}))
    try:
        context = rpclib.current_context()
    finally:
        current.reset(token)
    assert (context.id, context.method, context.caller) == ("01" * 16, "boot", "web1:7")
    assert context.metadata == {"trace": "abc"}
    assert context.remaining is not None
    assert 4 < context.remaining <= 5


def test_metadata_cannot_be_changed() -> None:
    for metadata in ({"a": 1}, {}, None):
        context = Context(request(context=metadata))
        assert dict(context.metadata) == (metadata or {})
        with pytest.raises(TypeError):
            context.metadata["b"] = 2  # type: ignore[index]


def test_remaining_is_never_negative_and_none_for_a_cast() -> None:
    assert Context(request(monotonic() - 5)).remaining == 0.0
    assert Context(request()).remaining is None
