"""Batches of records: written, read and broken; and what a session makes of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import NO_TAG, stamp
from rpclib_zmq.protocol.records import HEAD, LARGE, PACK_CONTENT, Broken, Record, clock, expired, read
from rpclib_zmq.session.arrivals import Arrivals

u32 = st.integers(0, 0xFFFFFFFF)
records = st.builds(
    Record,
    kind=st.integers(0, 255),
    number=u32,
    ttl=u32,
    waited=u32,
    value=u32,
    tag=st.binary(min_size=16, max_size=16),
    payload=st.binary(max_size=100),
    name=st.binary(max_size=100),
).map(lambda record: record._replace(size=len(record.payload)))


def read_all(data: bytes) -> list[Record]:
    found, offset = [], 0
    while offset < len(data):
        record, offset = read(data, offset)
        found.append(record)
    return found


@given(st.lists(records, max_size=20))
def test_batches_round_trip(batch: list[Record]) -> None:
    assert read_all(b"".join(record.encode() for record in batch)) == batch


@given(st.lists(records, min_size=1, max_size=5), st.integers(1, 10_000))
def test_a_batch_cut_anywhere_is_a_shorter_batch_or_broken(batch: list[Record], cut: int) -> None:
    data = b"".join(record.encode() for record in batch)
    short = data[: cut % len(data)]
    try:
        found = read_all(short)
    except Broken:
        return
    assert found == batch[: len(found)]
    assert b"".join(record.encode() for record in found) == short


@given(st.binary(max_size=300))
def test_any_bytes_are_records_or_broken(data: bytes) -> None:
    try:
        found = read_all(data)
    except Broken:
        return
    assert sum(HEAD + len(record.payload) + len(record.name) for record in found) == len(data)


def test_a_large_payload_is_not_in_the_batch() -> None:
    record = Record(header.DATA, size=LARGE, name=b"Oe/t/")
    assert read(record.encode() + b"next", 0) == (record, HEAD + 5)


def test_times_of_a_content() -> None:
    content = PACK_CONTENT(0, 1000, 5, stamp(100.0), NO_TAG)
    assert clock(content, 100.25) == (750, 255)
    assert not expired(content, 100.5)
    assert expired(content, 101.5)
    assert clock(content, 101.5)[0] == 1
    assert clock(PACK_CONTENT(0, 0, 0xFFFFFFFF, stamp(100.0), NO_TAG), 101.0) == (0, 0xFFFFFFFF)
    for_ever = PACK_CONTENT(0, 0, 0, stamp(100.0), NO_TAG)
    assert clock(for_ever, 100.25) == (0, 250)
    assert not expired(for_ever, 1000.0)


class Holder:
    """Stands in for a subscription of the driver."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.told: list[int] = []

    def tell(self) -> None:
        self.told.append(len(self.held))

    def end(self) -> None:
        self.held.clear()


def arrivals(frames: list[bytes] | None = None) -> tuple[Arrivals, Holder, Holder, list[Record]]:
    other: list[Record] = []
    made = Arrivals(iter(frames or []).__next__, other.append)
    one, two = Holder(), Holder()
    made.subscriptions = {1: one, 2: two}  # type: ignore[dict-item]
    return made, one, two, other


def deliver(number: int, payload: bytes, kind: int = header.DELIVER) -> bytes:
    return Record(kind, number, payload=payload).encode()


def test_subscribers_are_told_once_for_what_came_together() -> None:
    made, one, two, other = arrivals()
    made.read(b"".join(deliver(number, b"%d" % number) for number in (1, 1, 2, 2, 2, 3)))
    assert [item.body for item in one.held + two.held] == [b"1", b"1", b"2", b"2", b"2"]
    assert (one.told, two.told, other) == ([2], [3], [])


def test_records_take_effect_in_their_order() -> None:
    made, one, _, other = arrivals()
    accepted = Record(header.ACCEPTED, 7, value=1)
    one.tell = lambda: one.told.append(len(other))  # type: ignore[method-assign]
    made.read(deliver(1, b"a") + accepted.encode() + deliver(1, b"b", header.REDELIVER))
    assert [(item.body, item.redelivered) for item in one.held] == [(b"a", False), (b"b", True)]
    assert (one.told, other) == ([0, 1], [accepted])


def test_large_payloads_come_as_frames_in_their_order() -> None:
    made, one, _, other = arrivals([b"x" * LARGE, b"y" * LARGE])
    back = Record(header.UNDELIVERABLE, size=LARGE, name=b"why")
    made.read(Record(header.DELIVER, 1, size=LARGE).encode() + deliver(1, b"small") + back.encode())
    assert [item.body[:1] for item in one.held] == [b"x", b"s"]
    assert [(record.payload, record.name) for record in other] == [(b"y" * LARGE, b"why")]


def test_nothing_is_read_once_the_session_is_over() -> None:
    made, one, _, other = arrivals()
    one.tell = made.end  # type: ignore[method-assign]
    made.read(deliver(1, b"a") + Record(header.BYE).encode() + deliver(1, b"b"))
    assert (one.held, len(other)) == ([], 1)


@given(st.binary(max_size=300))
def test_a_session_takes_any_bytes_or_calls_them_broken(data: bytes) -> None:
    made, *_ = arrivals([b"x" * LARGE] * 10)
    try:
        made.read(data)
    except Broken:
        pass
