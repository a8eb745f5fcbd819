"""The parts that need no socket: headers, destinations, the outbox, options."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rpclib.address import Address, Kind
from rpclib_zmq.options import NetworkOptions, ZmqOptions, is_loopback
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import Header, age, decode, is_name, milliseconds, name_of, stamp
from rpclib_zmq.protocol.records import PACK_CONTENT
from rpclib_zmq.receiver.destination import Destination, Everyone, Shared
from rpclib_zmq.receiver.message import Consumer, Message, Sender, Stats
from rpclib_zmq.session.outbox import Outbox

u32 = st.integers(0, 0xFFFFFFFF)


@given(st.integers(0, 255), u32, u32, u32, u32, st.binary(min_size=16, max_size=16), st.binary(max_size=300))
def test_headers_round_trip(
    kind: int, ttl: int, waited: int, number: int, value: int, tag: bytes, name: bytes
) -> None:
    head = Header(kind, ttl, waited, number, value, tag, name)
    assert decode(head.encode()) == head


@given(st.binary(max_size=100))
def test_any_bytes_decode_or_do_not(data: bytes) -> None:
    head = decode(data)
    assert (head is not None) == (len(data) >= header.FIXED and data[:2] == b"RZ")


def test_names() -> None:
    assert name_of(Address(Kind.ONE, "e", "t")) == b"Oe/t/"
    assert name_of(Address(Kind.ONE, "e", "t", "a.b:c@d")) == b"Oe/t/a.b:c@d"
    assert name_of(Address(Kind.ALL, "e", "t")) == b"Ae/t"
    assert name_of(Address.inbox("00.1.2")) == b"I00.1.2"
    for name in (b"Oe/t/", b"Oe/t/s", b"Ae/t", b"I00.1.2", b"O" + b"e" * 60 + b"/" + b"t" * 80 + b"/" + b"s" * 100):
        assert is_name(name), name
    for name in (b"", b"O", b"Oe/t", b"Oe//", b"Ae/t/", b"Oe/t/ ", b"Oe/t/\n", b"Oe/t/x\n", b"Xe/t/", b"I../x"):
        assert not is_name(name), name


def test_times() -> None:
    assert (milliseconds(None), milliseconds(0.0001), milliseconds(1.5), milliseconds(1e9)) == (
        0,
        1,
        1500,
        2**32 - 1,
    )
    assert age(stamp(100.0), 100.25) == 250
    assert age(stamp(4294967.0), 4294968.0) == 1000, "across the wrap"
    assert age(stamp(200.0), 100.0) == 0, "a clock of its own"


class Source(Sender):
    def __init__(self, local: bool = True) -> None:
        self.local = local
        self.waiting: list[bytes] = []
        self.released: list[bytes] = []

    def kept(self, message: Message) -> None:
        self.waiting.append(body_of(message))

    def accepted(self, message: Message) -> None:
        self.waiting.remove(body_of(message))
        self.released.append(body_of(message))

    def undeliverable(self, message: Message, reason: str) -> None: ...

    def worker_lost(self, message: Message) -> None: ...


class Sink(Consumer):
    def __init__(self, window: int, local: bool = True) -> None:
        self.local = local
        self.window = window
        self.got: list[bytes] = []
        self.work = 0

    @property
    def load(self) -> int:
        return self.work

    @property
    def room(self) -> bool:
        return self.window > 0 and not self.stalled

    def deliver(self, message: Message, now: float) -> bool:
        self.window -= 1
        self.got.append(body_of(message))
        return True


def body_of(message: Message) -> bytes:
    assert isinstance(message.payload, bytes)
    return message.payload


def message(sender: Sender, body: int, ttl: int = 0) -> Message:
    payload = b"%d" % body
    content = PACK_CONTENT(len(payload), ttl, 0, stamp(0.0), header.NO_TAG) + payload
    return Message(sender, 1, 0, header.NO_TAG, b"Oe/t/", content, None, len(payload))


def bring(destination: Destination, source: Source, body: int) -> None:
    """As a receiver does: what need not wait is accepted at once."""
    brought = message(source, body)
    assert destination.put(brought, 0)
    if not brought.holds:
        source.released.append(body_of(brought))


def test_a_shared_destination_prefers_the_idle_and_takes_turns() -> None:
    destination, source, sinks = Shared(b"Oe/t/", Stats()), Source(), [Sink(10), Sink(10), Sink(10)]
    for sink in sinks:
        destination.add(sink)
        destination.serve(sink, 0)
    for number in range(6):
        destination.put(message(source, number), 0)
    assert [sink.got for sink in sinks] == [[b"0", b"3"], [b"1", b"4"], [b"2", b"5"]]
    sinks[0].work, sinks[2].work = 2, 1
    for number in range(6, 9):
        destination.put(message(source, number), 0)
    assert sinks[1].got[2:] == [b"6", b"7", b"8"]


def test_a_shared_destination_keeps_order_and_expires() -> None:
    destination, source, sink = Shared(b"Oe/t/", Stats()), Source(), Sink(0)
    destination.add(sink)
    for number in range(4):
        destination.put(message(source, number, ttl=1000 if number == 1 else 0), 0)
    destination.requeue([message(source, 10), message(source, 11)], 0)
    destination.expire(2)
    assert source.released == [b"1"]
    sink.window = 100
    destination.serve(sink, 2)
    assert sink.got == [b"10", b"11", b"0", b"2", b"3"]


def test_messages_of_peers_stay_on_the_machine() -> None:
    destination, peer, elsewhere, here = (
        Shared(b"Oe/t/", Stats()),
        Source(local=False),
        Sink(9, local=False),
        Sink(0),
    )
    destination.add(elsewhere)
    destination.serve(elsewhere, 0)
    assert not destination.put(message(peer, 0), 0), "nobody here: back it goes"
    destination.add(here)
    assert destination.put(message(peer, 1), 0)
    destination.put(message(Source(), 2), 0)
    assert elsewhere.got == [b"2"]
    destination.remove(here)
    assert [body_of(orphan) for orphan in destination.orphans()] == [b"1"]


def test_everyone_gets_a_copy_and_the_slowest_holds_the_sender() -> None:
    destination, source, quick, slow = Everyone(b"Ae/t", Stats()), Source(), Sink(9), Sink(0)
    for sink in (quick, slow):
        destination.add(sink)
    bring(destination, source, 1)
    assert (quick.got, source.waiting, source.released) == ([b"1"], [b"1"], [])
    slow.window = 9
    destination.serve(slow, 0)
    assert (slow.got, source.waiting, source.released) == ([b"1"], [], [b"1"])


def test_a_stalled_consumer_holds_nobody() -> None:
    stats = Stats()
    destination, source, sink = Everyone(b"Ae/t", stats), Source(), Sink(0)
    destination.add(sink)
    bring(destination, source, 0)
    sink.stalled = True
    destination.stall(sink)
    for number in range(1, 1500):
        bring(destination, source, number)
    assert (len(source.released), source.waiting) == (1500, [])
    assert stats.events["missed"] == 500


def test_the_outbox_keeps_lanes_apart() -> None:
    sent: list[bytes] = []
    outbox = Outbox(lambda head, body, name: sent.append(body))
    outbox.open(2, 1000)
    a, b = outbox.route(b"Oe/a/"), outbox.route(b"Oe/b/")
    assert outbox.route(b"Oe/a/").lane is a.lane
    inboxes = outbox.route(b"I1.1.1"), outbox.route(b"I2.2.2")
    assert inboxes[0].lane is not inboxes[1].lane
    for body in (b"a1", b"a2", b"a3", b"a4"):
        outbox.put(a, body, None, b"")
    outbox.put(b, b"b1", None, b"")
    assert sent == [b"a1", b"a2", b"b1"]
    assert outbox.waiting == 2
    outbox.accepted(a.lane.number, 1, 2)
    assert sent[3:] == [b"a3"]
    outbox.accepted(4711, 1, 1)
    outbox.accepted(a.lane.number, 2, 4)
    assert (sent[4:], outbox.waiting) == ([b"a4"], 0)


def test_lanes_share_the_window_of_the_session() -> None:
    sent: list[bytes] = []
    outbox = Outbox(lambda head, body, name: sent.append(body))
    outbox.open(2, 1000)
    routes = [outbox.route(b"Oe/%d/" % number) for number in range(6)]
    for number, route in enumerate(routes):
        for _ in range(2):
            outbox.put(route, b"%d" % number, None, b"")
    assert sent == [b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"]
    outbox.accepted(routes[0].lane.number, 2, 2)
    assert sent[8:] == []
    outbox.accepted(0, 2, 2)
    assert sent[8:] == [b"4", b"4"], "room that one lane leaves is for all"
    outbox.accepted(0, 2, 2)
    assert (sent[10:], outbox.waiting) == ([b"5", b"5"], 0)


def test_a_full_lane_shuts_its_gate() -> None:
    outbox = Outbox(lambda head, body, name: None)
    outbox.open(1, 1000)
    route, other = outbox.route(b"Oe/a/"), outbox.route(b"Oe/b/")
    for _ in range(1000):
        outbox.put(route, b"x", None, b"")
        assert not route.gate.shut
    assert not outbox.put(route, b"x", None, b""), "the session has room"
    assert (route.gate.shut, other.gate.shut) == (True, False)
    for _ in range(500):
        assert route.gate.shut
        outbox.accepted(0, 1, 1)
        outbox.accepted(route.lane.number, 1, 1)
    assert not route.gate.shut


def test_a_session_whose_window_is_used_up_is_full() -> None:
    outbox = Outbox(lambda head, body, name: None)
    outbox.open(1000, 1 << 20)
    routes = [outbox.route(b"Oe/%d/" % number) for number in range(10)]
    told = [outbox.put(routes[number % 10], b"x", None, b"") for number in range(5000)]
    assert told == [False] * 4999 + [True]
    assert not any(route.gate.shut for route in routes)
    outbox.accepted(0, 1, 1)
    assert not outbox.full


def test_what_expires_while_it_waits_is_not_sent() -> None:
    sent: list[bytes] = []
    outbox = Outbox(lambda head, body, name: sent.append(body))
    outbox.open(1, 1000)
    route = outbox.route(b"Oe/a/")
    for body, ttl in ((b"1", None), (b"2", 0.0), (b"3", 60.0)):
        outbox.put(route, body, ttl, b"")
    outbox.accepted(route.lane.number, 1, 1)
    assert (sent, outbox.waiting) == ([b"1", b"3"], 0)


def test_a_large_message_needs_any_room_at_all() -> None:
    sent: list[bytes] = []
    outbox = Outbox(lambda head, body, name: sent.append(body))
    outbox.open(100, 10)
    route = outbox.route(b"Oe/a/")
    outbox.put(route, b"x" * 50, None, b"")
    outbox.put(route, b"y", None, b"")
    assert sent == [b"x" * 50]


@pytest.mark.parametrize(
    ("given", "valid"),
    [
        ({}, True),
        ({"listen": "127.0.0.1:9501"}, True),
        ({"listen": "[::1]:9501"}, True),
        ({"listen": "localhost:9501"}, True),
        ({"listen": "0.0.0.0:9501"}, False),
        ({"listen": "[::]:9501"}, False),
        ({"listen": "host:9501"}, False),
        ({"listen": "host:9501", "insecure": "true"}, True),
        ({"listen": "host:9501", "secret": "/s", "known_hosts": "/k"}, True),
        ({"listen": "host:9501", "secret": "/s"}, False),
        ({"listen": "host:0", "insecure": True}, False),
        ({"peers": "a:1,b:2"}, True),
        ({"peers": ["a:1", "b"]}, False),
        ({"unknown": 1}, False),
    ],
)
def test_options(given: dict[str, Any], valid: bool) -> None:
    if valid:
        assert ZmqOptions(**given).start
    else:
        with pytest.raises(ValidationError):
            ZmqOptions(**given)


def test_options_become_a_command_line() -> None:
    options = NetworkOptions.model_validate({"listen": "127.0.0.1:1", "peers": "a:1,b:2", "insecure": True})
    assert options.arguments() == ["--listen", "127.0.0.1:1", "--peers", "a:1,b:2", "--insecure"]
    assert not is_loopback("example.invalid:1")
