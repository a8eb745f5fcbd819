"""The envelope: what is written can be read, and no bytes whatever do more than raise BadEnvelope."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpclib.errors import BadEnvelope, SerializationError
from rpclib.wire import serializer
from rpclib.wire.answer import Failure, Result, encode_error, encode_result
from rpclib.wire.control import encode_alive
from rpclib.wire.envelope import decode
from rpclib.wire.kinds import ALIVE, CALL, CAST, ERROR, MAX_BODY, RESULT
from rpclib.wire.request import Request, encode_again
from tests.support.envelopes import encode_request
from tests.support.values import keys, same, texts, values

ID = bytes(range(16))


arguments = st.dictionaries(texts, values, max_size=3)
maybe_text = st.none() | texts
ids = st.binary(min_size=16, max_size=16)


requests = st.tuples(
    st.sampled_from([CALL, CAST]),
    ids,
    texts,
    arguments,
    st.none() | st.floats(0.001, 1e8),
    st.none() | st.from_regex(r"[ -~]{1,255}", fullmatch=True),
    maybe_text,
    maybe_text,
    st.none() | st.dictionaries(keys, values, max_size=2),
    maybe_text,
).filter(lambda fields: fields[0] == CAST or (fields[5] and fields[4] is not None))


@settings(max_examples=40)
@given(requests)
def test_requests_round_trip(fields: tuple[Any, ...]) -> None:
    kind, ident, method, args, budget, reply_to, namespace, version, context, caller = fields
    request = decode(encode_request(*fields))
    if kind == CAST:
        budget = reply_to = None
    assert isinstance(request, Request)
    assert (request.kind, request.id, request.method) == (kind, ident, method)
    assert (request.reply_to, request.namespace, request.version) == (reply_to, namespace, version)
    assert request.caller == caller
    assert same(args, request.args)
    assert same(context, request.context)
    assert request.wants_answer is (kind == CALL)
    if budget is None:
        assert request.budget is None
    else:
        assert request.budget is not None
        assert budget - 0.001 <= request.budget <= max(0.001, budget)
    again = decode(encode_again(request, request.budget, request.reply_to))
    assert isinstance(again, Request)
    assert same(request.args, again.args)
    assert again.budget == pytest.approx(request.budget, abs=0.0011)


def test_only_a_call_wants_an_answer() -> None:
    """A cast is never answered, whatever its reply_to says; a call without a budget is legal."""
    fields: list[Any] = [1, CAST, ID, "m", {}, None, "inbox-1", None, None, None, None, 0]
    cast = decode(serializer.pack(fields))
    assert isinstance(cast, Request)
    assert (cast.wants_answer, cast.reply_to) == (False, None)
    fields[1] = CALL
    call = decode(serializer.pack(fields))
    assert isinstance(call, Request)
    assert (call.wants_answer, call.reply_to, call.budget) == (True, "inbox-1", None)


@given(ids, values)
def test_results_round_trip(id: bytes, value: Any) -> None:
    result = decode(encode_result(id, value))
    assert isinstance(result, Result)
    assert result.id == id
    assert same(value, result.value)


@settings(max_examples=40)
@given(st.tuples(ids, texts, texts, texts, texts, st.none() | st.lists(values, max_size=3), arguments))
def test_errors_round_trip(fields: tuple[Any, ...]) -> None:
    failure = decode(encode_error(*fields))
    assert isinstance(failure, Failure)
    assert (failure.id, failure.code, failure.type, failure.message, failure.traceback) == fields[:5]
    assert same(fields[5], failure.args)
    assert same(fields[6], failure.details)


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(0.0, 1), (0.0001, 1), (0.0019, 1), (2.5, 2500), (1e9 - 1, 999999999000)]
)
def test_a_budget_is_at_least_a_millisecond(seconds: float, milliseconds: int) -> None:
    body = encode_request(CALL, ID, "m", {}, seconds, "i", None, None, None, None)
    assert msgpack.unpackb(body)[5] == milliseconds
    decode(body)


def test_what_does_not_serialise_is_refused() -> None:
    writes: list[Callable[[], bytes]] = [
        lambda: encode_request(CAST, ID, "m", {"a": object()}, None, None, None, None, None, None),
        lambda: encode_result(ID, 2**64),
        lambda: encode_error(ID, "C", "", "\ud800", "", None, {}),
    ]
    for write in writes:
        with pytest.raises(SerializationError):
            write()


REQUEST = [1, CALL, ID, "m", {}, 5, "i", None, None, None, None, 0]


def changed(fields: list[Any], index: int, value: Any) -> bytes:
    packed: bytes = msgpack.packb([*fields[:index], value, *fields[index + 1 :]], default=serializer._encode_ext)
    return packed


@pytest.mark.parametrize(
    ("index", "value", "told"),
    [
        (0, 0, "version 0"),
        (0, 2, "version 2"),
        (0, 1.0, "no numbers"),
        (0, True, "no numbers"),
        (0, None, "no numbers"),
        (1, 0, "kind 0"),
        (1, 11, "kind 11"),
        (1, -1, "kind -1"),
        (1, 1.0, "no numbers"),
        (1, "1", "no numbers"),
        (1, [1], "no numbers"),
        (2, b"short", "16 bytes"),
        (2, b"x" * 17, "16 bytes"),
        (2, "x" * 16, "16 bytes"),
        (2, uuid.UUID(int=1), "16 bytes"),
        (3, None, "method"),
        (3, b"m", "method"),
        (4, None, "map of arguments"),
        (4, [], "map of arguments"),
        (4, {1: 2}, "name is not text"),
        (4, {b"a": 2}, "name is not text"),
        (5, -1, "milliseconds"),
        (5, 1 << 40, "milliseconds"),
        (5, 1.5, "milliseconds"),
        (5, True, "milliseconds"),
        (5, "5", "milliseconds"),
        (6, None, "without reply_to"),
        (6, "", "without reply_to"),
        (6, 7, "text or nil"),
        (6, b"i", "text or nil"),
        (6, "i" * 256, "ASCII"),
        (6, "é", "ASCII"),
        (7, 1, "text or nil"),
        (8, 1.2, "text or nil"),
        (9, [], "context"),
        (9, "c", "context"),
        (10, {}, "text or nil"),
    ],
)
def test_each_field_of_a_request_is_checked(index: int, value: Any, told: str) -> None:
    decode(msgpack.packb(REQUEST))
    with pytest.raises(BadEnvelope, match=told):
        decode(changed(REQUEST, index, value))


FAILURE = [1, ERROR, ID, "C", "", "", "", None, {}, 0]


@pytest.mark.parametrize(
    ("index", "value"), [(3, None), (4, 1), (5, b""), (6, []), (7, {}), (7, "a"), (8, None), (8, []), (8, "d")]
)
def test_each_field_of_an_error_is_checked(index: int, value: Any) -> None:
    decode(msgpack.packb(FAILURE))
    with pytest.raises(BadEnvelope):
        decode(changed(FAILURE, index, value))


@pytest.mark.parametrize("fields", [REQUEST, [1, RESULT, ID, 7, 0], FAILURE, [1, ALIVE, ID]])
def test_fields_may_be_added_but_not_left_out(fields: list[Any]) -> None:
    for newer in (None, "x", [1], b"\0" * 50):
        decode(msgpack.packb([*fields, newer]))
    for count in range(len(fields)):
        with pytest.raises(BadEnvelope):
            decode(msgpack.packb(fields[:count]))


@pytest.mark.parametrize("value", [None, 1, "x", b"x", {}, {"a": 1}, 1.5])
def test_only_an_array_is_an_envelope(value: Any) -> None:
    with pytest.raises(BadEnvelope, match="no array"):
        decode(msgpack.packb(value))


@pytest.mark.parametrize("index", range(3))
def test_deep_nesting_in_a_fixed_field_is_refused(index: int) -> None:
    parts = [b"\x01", b"\x01", b"\xc4\x10" + ID]
    for depth in (60, 900, 1010, 1030):
        parts[index] = b"\x91" * depth + b"\x01"
        with pytest.raises(BadEnvelope) as caught:
            decode(b"\x93" + b"".join(parts))
        assert len(str(caught.value)) < 300


@given(st.binary(max_size=100))
def test_arbitrary_bytes(body: bytes) -> None:
    for candidate in (
        body,
        b"\x9c\x01\x01" + body,
        b"\x95\x01\x03\xc4\x10" + ID + body,
        b"\x9a\x01\x04\xc4\x10" + ID + body,
    ):
        try:
            decode(candidate)
        except BadEnvelope:
            pass


ODD = [dt.datetime(2024, 2, 29, tzinfo=dt.UTC), dt.date(2024, 2, 29), dt.timedelta(1), uuid.UUID(int=1), {1, "a"}]
GOOD = [
    encode_request(CALL, ID, "boot", {"a": 1, "b": [ODD]}, 30.0, "inbox-1", "n", "1.2", {"t": "x"}, "web1:7"),
    encode_request(CAST, ID, "boot", {}, None, None, None, None, None, None),
    encode_result(ID, {"state": ODD, 7: 1.5}),
    encode_error(ID, "REMOTE", "app.Refused", "no", "Traceback", ["no", 7], {"maybe_executed": True}),
    encode_alive(ID),
]


@given(
    st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4), st.data()
)
def test_mutated_envelopes(body: bytes, changes: list[tuple[int, int]], data: st.DataObject) -> None:
    mutated = bytearray(body)
    for where, byte in changes:
        mutated[where % len(mutated)] = byte
    cut = data.draw(st.integers(0, len(mutated)))
    for candidate in (bytes(mutated), bytes(mutated[:cut]), bytes(mutated[:cut] + mutated[cut // 2 :])):
        try:
            message = decode(candidate)
        except BadEnvelope:
            continue
        assert len(message.id) == 16


def test_a_full_size_bomb_is_refused_in_seconds() -> None:
    body = (b"\x95\x01\x03\xc4\x10" + ID + b"\xdd\x00\x0f\xff\xff" * 1000).ljust(MAX_BODY, b"\x01")
    began = time.process_time()
    with pytest.raises(BadEnvelope):
        decode(body)
    assert time.process_time() - began < 10
