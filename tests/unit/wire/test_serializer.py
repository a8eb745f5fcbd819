"""The serializer: documented types come back equal, everything else is refused on the side that can act on it."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import threading
import time
import tracemalloc
import uuid
import zoneinfo
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rpclib.errors import SerializationError
from rpclib.wire import serializer
from tests.support.values import same, values

D = decimal.Decimal
EARLIEST, LATEST = dt.datetime.min, dt.datetime.max


@given(values)
@example(EARLIEST.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))))
@example(LATEST.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))))
@example(dt.timedelta.min)
@example(dt.timedelta.max)
@example([D("-0.00"), D("1E+400"), D("Infinity"), D("123456789012345678901234567890.5")])
@example({"": {0: {-1: ()}}})
def test_round_trip(value: Any) -> None:
    serializer.check_value(value, "value")
    serializer.check({"value": value})
    assert same(value, serializer.unpack(serializer.pack(value)))


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-NaN123"])
def test_decimals_that_are_no_numbers(text: str) -> None:
    back = serializer.unpack(serializer.pack(D(text)))
    assert str(back) == text


def test_nan_comes_back() -> None:
    back = serializer.unpack(serializer.pack(float("nan")))
    assert back != back


def test_a_time_zone_with_a_name_keeps_its_instant_and_offset() -> None:
    value = dt.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Prague"))
    back = serializer.unpack(serializer.pack(value))
    assert back == value
    assert back.utcoffset() == dt.timedelta(hours=2)


def test_subclasses_travel_as_what_they_extend() -> None:
    class Number(enum.IntEnum):
        TWO = 2

    class Name(str):
        __slots__ = ()

    Point = collections.namedtuple("Point", "x y")
    value = {"a": Number.TWO, "b": Name("n"), "c": Point(1, 2), "d": collections.OrderedDict(x=1)}
    serializer.check(value)
    assert same({"a": 2, "b": "n", "c": [1, 2], "d": {"x": 1}}, serializer.unpack(serializer.pack(value)))


class Odd:
    pass


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), r"value is object, which does not travel"),
        (Odd(), r"value is tests\.unit\.wire\.test_serializer\.Odd"),
        ([1, {"k": [Odd()]}], r"value\[1\]\['k'\]\[0\] is .*Odd"),
        (range(3), "range"),
        (bytearray(b"x"), "bytearray"),
        (1j, "complex"),
        (dt.time(), "datetime.time"),
        ({(1,): 1}, r"key \(1,\)"),
        ({True: 1}, "key True"),
        ({None: 1}, "key None"),
        ({1.5: 1}, "key 1.5"),
        ({b"k": 1}, "key b'k'"),
        ({(1, 2)}, "set holding tuple"),
        ({frozenset()}, "set holding frozenset"),
        (dt.datetime(2024, 1, 1), "value is a datetime without a time zone"),
        ({dt.datetime(2024, 1, 1)}, "without a time zone"),
        ([0] * (serializer.MAX_ELEMENTS + 1), r"value has 1048577 elements"),
    ],
)
def test_what_does_not_travel_is_named(value: Any, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        serializer.check_value(value, "value")
    with pytest.raises(SerializationError, match="argument a" if "value" in told else told):
        serializer.check({"ok": 1, "a": value})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ([{"a": 2**64}], "64 bits"),
        ({2**64: 1}, "64 bits"),
        ({2**64}, "64 bits"),
        ("\ud800", "Unicode"),
        ({"\ud800": 1}, "Unicode"),
        ({"\ud800"}, "Unicode"),
        (object(), "object does not travel"),
        (dt.datetime(2024, 1, 1), "time zone"),
        (dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))), "whole number of seconds"),
    ],
)
def test_what_packing_refuses(value: Any, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        serializer.pack([b"x" * 100, value])
    assert serializer.unpack(serializer.pack(7)) == 7, "the packer was left with half a message"


def nested(depth: int, of: type = list) -> Any:
    value: Any = of()
    for _ in range(depth - 1):
        value = {"k": value} if of is dict else [value]
    return value


@pytest.mark.parametrize("of", [list, dict])
def test_depth(of: type) -> None:
    serializer.check_value(nested(64, of), "value")
    assert serializer.unpack(serializer.pack(nested(64, of))) == nested(64, of)
    for depth in (65, 100_000):
        with pytest.raises(SerializationError, match="deeper than 64"):
            serializer.check_value(nested(depth, of), "value")
    with pytest.raises(SerializationError):
        serializer.pack(nested(5000, of))
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(SerializationError, match="deeper"):
        serializer.check_value(itself, "value")


def test_packers_are_not_shared_between_threads() -> None:
    wrong: list[object] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        value = {"k": [number] * 1000}
        start.wait(10)
        wrong.extend(n for n in range(300) if serializer.unpack(serializer.pack(value)) != value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def ext(code: int, data: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xc0\xc0",
        b"\x91",
        b"\xa1\xff",
        b"\x81\x90\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x06",
        b"\x91" * 100_000,
        b"\x81\x01" * 100_000,
        ext(0, b"x"),
        ext(7, b"x"),
        ext(127, b""),
        ext(1, b"short"),
        ext(1, b"\x7f" * 12),
        ext(1, b"\0" * 8 + b"\x7f\xff\xff\xff"),
        ext(2, b"\0" * 4),
        ext(2, b"\xff" * 4),
        ext(2, b"\0" * 5),
        ext(3, b"\x7f\xff\xff\xff" * 3),
        ext(4, b"x" * 15),
        ext(5, b"one"),
        ext(5, b"\xff"),
        ext(5, b"1" * 3 + b"\0"),
        ext(6, b""),
        ext(6, b"\x01"),
        ext(6, b"\x92\x01"),
        ext(6, b"\x91\x01\x01"),
        ext(6, b"\x92\x01\xa5ab"),
        ext(6, b"\x91\x90"),
        ext(6, b"\x91\x80"),
        ext(6, b"\xdd\xff\xff\xff\xff\x01"),
        ext(6, msgpack.packb([msgpack.ExtType(6, b"\x90")])),
        ext(6, b"\x91" + b"\xdd\x00\x0f\xff\xff" * 10_000),
        b"\xd6\xff" + b"\xff" * 3,
        b"\xc7\x0c\xff" + b"\xff" * 12,
    ],
    ids=lambda body: body[:12].hex() or "empty",
)
def test_malformed_bytes_are_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError) as caught:
        serializer.unpack(body)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_value_error(body: bytes) -> None:
    try:
        serializer.unpack(body)
    except ValueError:
        pass


def bomb(kind: str) -> bytes:
    """A mebibyte that asks for as much as it can."""
    size = 1 << 20
    match kind:
        case "nested arrays that each claim a million":
            return (b"\xdd\x00\x0f\xff\xff" * 1000).ljust(size, b"\x01")
        case "nested maps that each claim a million":
            return (b"\xdf\x00\x0f\xff\xff\x01" * 1000).ljust(size, b"\x01")
        case "a set of nested arrays":
            return ext(6, b"\x91" + (b"\xdd\x00\x0f\xff\xff" * 1000).ljust(size, b"\x01"))
        case "sets in sets":
            data = b"\x90"
            while len(data) < size:
                data = b"\x91" + ext(6, data) * 1
                data += b"\x01" * max(0, min(2000, size - len(data)))
            return ext(6, data)
        case "many sets":
            return b"\xdd\x00\x01\x00\x00" + ext(6, b"\x91\x01") * 65536
        case "a long decimal":
            return ext(5, b"9" * size)
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "nested arrays that each claim a million",
        "nested maps that each claim a million",
        "a set of nested arrays",
        "sets in sets",
        "many sets",
        "a long decimal",
    ],
)
def test_no_bomb_takes_long(kind: str) -> None:
    body = bomb(kind)
    began = time.process_time()
    try:
        serializer.unpack(body)
    except ValueError:
        pass
    assert time.process_time() - began < 5


def test_a_declared_length_reserves_nothing() -> None:
    body = b"\xdd\x7f\xff\xff\xff" + b"\x01" * 1000
    tracemalloc.start()
    try:
        for broken in (body, ext(6, body), b"\x91" * 500 + body):
            with pytest.raises(ValueError):
                serializer.unpack(broken)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_ext_subclass_scalars() -> None:
    class Own(uuid.UUID):
        pass

    value = Own(int=5)
    assert serializer.unpack(serializer.pack(value)) == uuid.UUID(int=5)
