"""The codec against pika's own encoders and decoders, byte for byte and event for event."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pika.frame
import pika.spec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pika.heartbeat import HeartbeatChecker

from rpclib.testing.waiting import tap
from rpclib_amqp import codec
from rpclib_amqp.channel import Channel
from rpclib_amqp.connection import Connection
from tests.drivers.amqp.session import inbox, one, session

LONGEST = 40
"""Bytes of the longest body frame of these tests."""
CHANNELS = (1, 2, 3)
TAGS = ("0000", "ffff", "r", "", "ctag1.amq")
"""Of consumers; the codec reads those of four bytes, and leaves the others to pika."""

Event = tuple[object, ...]


class Nobody:
    def pressure(self, source: object, on: bool) -> None: ...

    def blocked(self, reason: str | None) -> None: ...

    def connection_ended(self, error: Exception) -> None: ...

    def receivers_notified(self) -> None: ...


class Arrivals(list[codec.Message]):
    """Writes down, in order with all else, what arrives for one consumer."""

    def __init__(self, events: list[Event], number: int, tag: str) -> None:
        super().__init__()
        self._log = events
        self._where = (number, tag)

    def append(self, message: codec.Message) -> None:
        super().append(message)
        self._log.append((*self._where, message.tag, message.redelivered, message.body))


class Receiver:
    def __init__(self, arrived: Arrivals) -> None:
        self.arrived: list[codec.Message] = arrived
        self.notified: list[int] = []

    def notify(self) -> None:
        self.notified.append(len(self.arrived))
        self.arrived.clear()


class Wire:
    """A connection without a socket that writes down what happens to it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.connection = Connection(pika.ConnectionParameters(), Nobody())
        self.connection._body_max_length = LONGEST
        self.connection._heartbeat_checker = self  # type: ignore[assignment]
        for number in CHANNELS:
            self._open(number)

    def received(self) -> None:
        self.events.append(("heartbeat",))

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.connection._on_data_available(chunk)

    @property
    def outcome(self) -> tuple[list[Event], int, int]:
        return self.events, self.connection.bytes_received, self.connection.frames_received

    def _open(self, number: int) -> None:
        channel = Channel(self.connection, number, None)
        channel.consumers = {tag.encode(): Receiver(Arrivals(self.events, number, tag)) for tag in TAGS}
        channel.add_on_return_callback(lambda _, method, properties, body: self.events.append((number, body)))
        self.connection._channels[number] = channel
        self.connection.callbacks.add(
            number,
            pika.spec.Basic.Ack,
            lambda frame: self.events.append((number, frame.method.delivery_tag)),
            False,
        )


@contextmanager
def stock() -> Iterator[None]:
    """pika does everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "IN_USE", False)
        yield


def expected(stream: bytes) -> tuple[list[Event], int, int]:
    """What becomes of ``stream`` with pika alone."""
    with stock():
        wire = Wire()
        wire.feed(stream)
    return wire.outcome


def content(number: int, method: Any, body: bytes, size: int, **properties: Any) -> list[bytes]:
    """The frames of one message, with up to ``size`` bytes in each body frame."""
    head = pika.frame.Header(number, len(body), pika.spec.BasicProperties(**properties))
    parts = [pika.frame.Body(number, body[at : at + size]) for at in range(0, len(body), size)]
    return [each.marshal() for each in (pika.frame.Method(number, method), head, *parts)]


def deliver(
    number: int, tag: int, body: bytes, consumer: str = "0000", size: int = LONGEST, **more: Any
) -> list[bytes]:
    method = pika.spec.Basic.Deliver(consumer, tag, tag % 2 == 1, "exchange", "key")
    return content(number, method, body, size, **more)


HEARTBEAT = pika.frame.Heartbeat().marshal()


def ack(number: int, tag: int) -> bytes:
    return pika.frame.Method(number, pika.spec.Basic.Ack(tag, False)).marshal()


STREAM = b"".join(
    [
        *deliver(1, 1, b"first"),
        HEARTBEAT,
        *deliver(2, 2, b"x" * LONGEST, expiration="60000"),
        *deliver(1, 3, b""),
        *deliver(3, 4, b"y" * (2 * LONGEST + 1)),
        *deliver(1, 5, b"\xce" * 9, consumer="r"),
        ack(2, 6),
        *content(2, pika.spec.Basic.Return(312, "NO_ROUTE", "exchange", "key"), b"returned", LONGEST),
        *deliver(2, 7, b"headers", headers={"a": 1}, message_id="m", priority=3),
        *deliver(1, 1 << 63, b"last"),
        HEARTBEAT,
    ]
)


async def test_split_at_every_byte() -> None:
    """In two pieces at each place, and in pieces of one byte: nothing changes."""
    outcome = expected(STREAM)
    assert len(outcome[0]) == 11
    for at in range(len(STREAM) + 1):
        wire = Wire()
        wire.feed(STREAM[:at], STREAM[at:])
        assert wire.outcome == outcome, at
    wire = Wire()
    wire.feed(*(STREAM[at : at + 1] for at in range(len(STREAM))))
    assert wire.outcome == outcome


async def test_frames_of_others_in_between() -> None:
    """Heartbeats and other channels' frames between any two frames of a message."""
    first, second = deliver(1, 1, b"one"), deliver(2, 2, b"two")
    for at in (1, 2):
        for between in ([HEARTBEAT], [ack(2, 9)], second):
            stream = b"".join([*first[:at], *between, *first[at:], *deliver(1, 3, b"three")])
            wire = Wire()
            wire.feed(stream)
            assert wire.outcome == expected(stream)


messages = st.builds(
    deliver,
    st.sampled_from(CHANNELS),
    st.integers(1, 2**64 - 1),
    st.binary(max_size=3 * LONGEST),
    consumer=st.sampled_from([*TAGS, "none"]),
    size=st.integers(1, LONGEST),
    expiration=st.none() | st.integers(0, 2**32).map(str),
    content_type=st.none() | st.text(max_size=5),
)
acks = st.builds(lambda number, tag: [ack(number, tag)], st.sampled_from(CHANNELS), st.integers(0, 99))


def interleaved(items: list[list[bytes]], chance: random.Random) -> bytes:
    """The frames of all items, mixed: each channel's stay in order."""
    queues: dict[int, list[bytes]] = {}
    for item in items:
        queues.setdefault(int.from_bytes(item[0][1:3]), []).extend(item)
    frames = []
    while queues:
        number = chance.choice(sorted(queues))
        count = chance.choice((1, 3, 3, 3, 3))
        frames += queues[number][:count]
        del queues[number][:count]
        if not queues[number]:
            del queues[number]
    return b"".join(frames)


@given(
    st.lists(messages | acks | st.just([HEARTBEAT]), max_size=12),
    st.lists(st.integers(1, 60), min_size=1),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_stream_in_any_pieces(items: list[list[bytes]], sizes: list[int], chance: random.Random) -> None:
    async def check() -> None:
        stream = interleaved(items, chance)
        wire, at = Wire(), 0
        while at < len(stream):
            size = chance.choice(sizes)
            wire.feed(stream[at : at + size])
            at += size
        assert wire.outcome == expected(stream)
        assert wire.connection._frame_buffer == b""

    asyncio.run(check())


names = st.text(st.characters(codec="ascii"), max_size=255)


@given(
    st.integers(1, 65535),
    names,
    names,
    st.booleans(),
    st.integers(1, 131064),
    st.none() | st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_packs_what_pika_packs(
    channel: int, exchange: str, key: str, mandatory: bool, size: int, ttl: int | None
) -> None:
    method = pika.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    expiration = None if ttl is None else str(ttl)
    body = bytes(size)
    packed = codec.publish(channel, exchange, key, mandatory) + codec.content(
        channel, size, (expiration or "").encode()
    )
    assert packed + body + codec.END == b"".join(content(channel, method, body, size, expiration=expiration))


async def test_garbage_is_an_error_and_no_loop() -> None:
    """A frame without its end, in each of the three frames of a message."""
    good = deliver(1, 1, b"body")
    for number in range(3):
        broken = [frame[:-1] + b"!" if at == number else frame for at, frame in enumerate(good)]
        with pytest.raises(pika.exceptions.InvalidFrameError):
            Wire().feed(b"".join(broken))


async def test_messages_count_as_signs_of_life() -> None:
    """Heartbeats look at the bytes that arrived: a message counts, and so does a piece of one."""
    wire = Wire()
    checker = HeartbeatChecker(wire.connection, 60)
    try:
        for chunk in (STREAM[:-8], b"".join(deliver(1, 1, b"whole")), STREAM[:10], STREAM[10:20]):
            wire.feed(chunk)
            checker._check_heartbeat()
            assert checker._idle_byte_intervals == 0
    finally:
        checker.stop()


def test_a_pika_that_disagrees_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert codec.IN_USE
    assert codec.agrees_with_pika()
    marshal = pika.frame.Header.marshal
    monkeypatch.setattr(pika.frame.Header, "marshal", lambda header: marshal(header)[:-1] + b"!")
    assert not codec.agrees_with_pika()
    monkeypatch.delattr(pika.frame, "Header")
    assert not codec.agrees_with_pika()


@pytest.mark.parametrize("fused", [True, False], ids=["codec", "stock pika"])
async def test_every_size_arrives(
    amqp_url: str, exchange: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty, small, exactly one frame, one byte more, many frames; requests with a ttl and replies without."""
    monkeypatch.setattr(codec, "IN_USE", fused)
    async with session(amqp_url) as (driver, events):
        longest = driver._publishing.longest_frame
        bodies = [b"\xce" * size for size in (0, 1, 100, longest - 1, longest, longest + 1, 5 * longest)]
        replies = await tap(driver, inbox(exchange), prefetch=0)
        requests = await tap(driver, one(exchange), prefetch=0)
        for subscription, ttl in ((replies, None), (requests, 30.0)):
            route = driver.route(subscription.address)
            for body in bodies * 2:
                driver.send(route, body, ttl)
            got = await subscription.receive(2 * len(bodies))
            assert [item.body for item in got] == bodies * 2
        sent = driver._publishing.bytes_sent
        assert sent > sum(map(len, bodies)) * 4
        assert driver._publishing.frames_sent > len(bodies) * 4 * 2
        assert driver._consuming.bytes_received > sum(map(len, bodies)) * 4
        assert not events.losses
