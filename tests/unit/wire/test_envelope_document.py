"""docs/reference/envelope.md is what the code does: every vector, code and limit in it is tried."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpclib import errors
from rpclib.errors import BadEnvelope, RpcError
from rpclib.wire import serializer
from rpclib.wire.answer import Failure, Result, encode_error, encode_result
from rpclib.wire.control import Alive, encode_alive
from rpclib.wire.envelope import decode
from rpclib.wire.kinds import ALIVE, CALL, CAST, ERROR, MAX_BODY, RESULT
from rpclib.wire.request import Request
from tests.support.envelopes import encode_request
from tests.support.values import same

DOCUMENT = (Path(__file__).parents[3] / "docs" / "reference" / "envelope.md").read_text()
ID = bytes(range(16))

VALUES: dict[str, Any] = {
    "nil": None,
    "true": True,
    "seven": 7,
    "minus-one": -1,
    "largest": 2**64 - 1,
    "smallest": -(2**63),
    "float": 1.5,
    "text": "é",
    "bytes": b"\x00\xff",
    "list": [1, "a"],
    "map": {"a": 1, 7: None},
    "datetime": dt.datetime(2024, 2, 29, 12, 0, 0, 123456, dt.timezone(dt.timedelta(hours=1))),
    "date": dt.date(2024, 2, 29),
    "duration": dt.timedelta(days=-1, microseconds=1),
    "uuid": uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
    "decimal": decimal.Decimal("-0.10"),
    "set": {1},
    "set-of-dates": {dt.date(2024, 2, 29)},
}

ENVELOPES: dict[str, Callable[[], bytes]] = {
    "call": lambda: encode_request(CALL, ID, "ping", {}, 5.0, "inbox-1", None, None, None, None),
    "call-full": lambda: encode_request(
        CALL,
        ID,
        "boot",
        {"instance_id": "i-1", "size": 3},
        30.0,
        "inbox-1",
        "admin",
        "1.2",
        {"trace": "abc"},
        "web1:4711",
    ),
    "cast": lambda: encode_request(
        CAST, ID, "boot", {"instance_id": "i-2"}, None, None, None, None, None, "web1:4711"
    ),
    "result": lambda: encode_result(ID, {"state": "ok"}),
    "error": lambda: encode_error(ID, "NO_SUCH_METHOD", "", 'no method "pong"', "", None, {}),
    "error-remote": lambda: encode_error(ID, "REMOTE", "app.Refused", "no, 7", "Traceback", ["no", 7], {}),
    "error-details": lambda: encode_error(ID, "WORKER_LOST", "", "gone", "", None, {"maybe_executed": True}),
    "alive": lambda: encode_alive(ID),
}

DECODED: dict[str, tuple[type, dict[str, Any]]] = {
    "call": (
        Request,
        {
            "kind": CALL,
            "id": ID,
            "method": "ping",
            "args": {},
            "budget": 5.0,
            "reply_to": "inbox-1",
            "namespace": None,
            "version": None,
            "context": None,
            "caller": None,
        },
    ),
    "call-full": (
        Request,
        {
            "kind": CALL,
            "id": ID,
            "method": "boot",
            "args": {"instance_id": "i-1", "size": 3},
            "budget": 30.0,
            "reply_to": "inbox-1",
            "namespace": "admin",
            "version": "1.2",
            "context": {"trace": "abc"},
            "caller": "web1:4711",
        },
    ),
    "cast": (Request, {"kind": CAST, "args": {"instance_id": "i-2"}, "budget": None, "reply_to": None}),
    "result": (Result, {"id": ID, "value": {"state": "ok"}}),
    "error": (
        Failure,
        {
            "id": ID,
            "code": "NO_SUCH_METHOD",
            "type": "",
            "message": 'no method "pong"',
            "traceback": "",
            "args": None,
            "details": {},
        },
    ),
    "error-remote": (
        Failure,
        {"code": "REMOTE", "type": "app.Refused", "message": "no, 7", "traceback": "Traceback", "args": ["no", 7]},
    ),
    "error-details": (Failure, {"code": "WORKER_LOST", "details": {"maybe_executed": True}}),
    "alive": (Alive, {"id": ID}),
    "newer-result": (Result, {"id": ID, "value": None}),
    "long-forms": (Result, {"id": ID, "value": 7}),
    "timestamp": (Result, {"value": dt.datetime(1970, 1, 1, 0, 0, 10, tzinfo=dt.UTC)}),
}


def vectors() -> dict[str, bytes]:
    """The named envelopes of the document."""
    found = re.findall(r"^`([\w-]+)`:.*?\n\n```hex\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return {name: bytes.fromhex(re.sub(r"#.*|\s", "", text)) for name, text in found}


def table(columns: int) -> list[tuple[str, ...]]:
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.splitlines() if line.startswith("| `")]
    return [tuple(cell.strip("` |") for cell in row) for row in rows if len(row) == columns]


def documented_values() -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, _, text in table(3) if name.islower()}


def test_the_document_has_the_vectors_that_are_tested() -> None:
    named = vectors()
    assert documented_values().keys() == VALUES.keys()
    assert {name for name in named if not name.startswith("bad-")} == DECODED.keys()
    assert ENVELOPES.keys() < DECODED.keys()
    assert sum(name.startswith("bad-") for name in named) == 8
    assert DOCUMENT.count("```hex") == len(named), "a vector without a name"


@pytest.mark.parametrize("name", VALUES)
def test_golden_values(name: str) -> None:
    golden = documented_values()[name]
    assert serializer.pack(VALUES[name]).hex() == golden.hex()
    assert same(VALUES[name], serializer.unpack(golden))


@pytest.mark.parametrize("name", ENVELOPES)
def test_golden_envelopes_are_written(name: str) -> None:
    assert ENVELOPES[name]().hex() == vectors()[name].hex()


@pytest.mark.parametrize("name", DECODED)
def test_golden_envelopes_are_read(name: str) -> None:
    kind, fields = DECODED[name]
    message = decode(vectors()[name])
    assert type(message) is kind
    assert {field: getattr(message, field) for field in fields} == fields


@pytest.mark.parametrize("name", [name for name in vectors() if name.startswith("bad-")])
def test_golden_rubbish_is_refused(name: str) -> None:
    with pytest.raises(BadEnvelope):
        decode(vectors()[name])


def test_the_document_lists_every_error_code() -> None:
    def codes(cls: type[RpcError]) -> set[str]:
        return {cls.code}.union(*map(codes, cls.__subclasses__()))

    own = {name for name in codes(RpcError) if errors.by_code(name) is not None}
    documented = {row[0] for row in table(3) if row[0].isupper()} | {row[0] for row in table(2) if row[0].isupper()}
    assert documented == own
    travelling = {row[0] for row in table(3) if row[0].isupper() and row[2] == "travels"}
    assert {cls.code for cls in vars(errors).values() if getattr(cls, "travels", False)} < travelling


def test_the_document_names_limits_and_kinds() -> None:
    assert f"{MAX_BODY:,}".replace(",", " ") in DOCUMENT
    assert f"{serializer.MAX_ELEMENTS:,}".replace(",", " ") in DOCUMENT
    assert f"at most {serializer.MAX_DEPTH} deep" in DOCUMENT
    for number, name in ((CALL, "CALL"), (CAST, "CAST"), (RESULT, "RESULT"), (ERROR, "ERROR"), (ALIVE, "ALIVE")):
        assert f"| {number} | {name} |" in DOCUMENT
