"""ZMTP: messages come out as they went in, however the bytes are cut, and whatever is wrong is said to be."""

from __future__ import annotations

import contextlib
import itertools
import random
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rpclib_zmq.protocol.records import LARGE
from rpclib_zmq.protocol.zmtp import Frame, Inbound, Malformed, handshake, prefix

LONGEST = 100_000
HELLO = handshake(b"DEALER")
GREETING, READY = HELLO[:64], HELLO[64:]
MORE, LONG, COMMAND = 1, 2, 4
SIZES = [0, 1, 2, 255, 256, 257, LARGE - 1, LARGE, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 70_000]
PATTERN = random.Random(1).randbytes(1 << 17)


def body(size: int, salt: int = 0) -> bytes:
    """Bytes of which no two parts are alike."""
    return PATTERN[salt : salt + size]


def encode(*messages: list[bytes]) -> bytes:
    return b"".join(
        prefix(len(frame), number < len(message)) + frame
        for message in messages
        for number, frame in enumerate(message, 1)
    )


class Reader:
    """An `Inbound` that is given bytes the way a socket gives them."""

    def __init__(self, longest: int = LONGEST) -> None:
        self.messages: list[list[Frame]] = []
        self.ready = 0
        self.inbound = Inbound(self.messages.append, self._on_ready, longest)

    def _on_ready(self) -> None:
        self.ready += 1

    def take(self, data: bytes) -> None:
        """Bytes that are there at once: what fits goes where there is room."""
        while data:
            room = self.inbound.room
            if room is None:
                self.inbound.feed(data)
                return
            size = min(len(room), len(data))
            room[:size] = data[:size]
            del room
            self.inbound.filled(size)
            data = data[size:]


def received(*pieces: bytes) -> list[list[Frame]]:
    reader = Reader()
    for piece in pieces:
        reader.take(piece)
    return reader.messages


messages = st.lists(
    st.lists(st.builds(body, st.sampled_from(SIZES), st.integers(0, 1000)), min_size=1, max_size=4), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(sent=messages, data=st.data())
def test_messages_come_out_however_they_are_cut(sent: list[list[bytes]], data: st.DataObject) -> None:
    stream = HELLO + encode(*sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted), "cuts")
    edges = [0, *cuts, len(stream)]
    assert received(*(stream[here:there] for here, there in itertools.pairwise(edges))) == sent


@settings(max_examples=50, deadline=None)
@given(sent=messages, size=st.sampled_from([1000, 4096, 65_536, 127 * 1024]))
def test_messages_come_out_of_pieces_of_one_size(sent: list[list[bytes]], size: int) -> None:
    stream = HELLO + encode(*sent)
    assert received(*(stream[start : start + size] for start in range(0, len(stream), size))) == sent


SMALL = [[b""], [b"a", b"", b"bc"], [body(255)], [body(256), b"d"], [b"e"]]


def test_a_stream_cut_at_any_place() -> None:
    stream = HELLO + encode(*SMALL)
    for cut in range(len(stream) + 1):
        assert received(stream[:cut], stream[cut:]) == SMALL, cut


def test_a_stream_of_single_bytes() -> None:
    sent = [*SMALL, [body(20_000), b"f"], [b"g"]]
    stream = HELLO + encode(*sent)
    assert received(*(stream[place : place + 1] for place in range(len(stream)))) == sent


@pytest.mark.parametrize("more", [False, True])
def test_a_long_frame_that_comes_in_room_is_followed_by_the_next(more: bool) -> None:
    """There is room for exactly the rest of the frame."""
    long, last = body(50_000), body(30_000, 7)
    stream = prefix(len(long), more) + long + prefix(len(last)) + last
    for begun in (9, 10, 49_000, 9 + 49_999):
        reader = Reader()
        reader.take(HELLO)
        reader.take(stream[:begun])
        assert reader.inbound.room is not None
        assert len(reader.inbound.room) == 9 + 50_000 - begun
        reader.take(stream[begun:])
        assert reader.messages == ([[long, last]] if more else [[long], [last]])
        assert reader.inbound.room is None


def test_messages_before_something_wrong_are_handed_over() -> None:
    reader = Reader()
    with pytest.raises(Malformed):
        reader.take(HELLO + encode([b"a"], [b"b", b"c"]) + b"\x80\x00")
    assert reader.messages == [[b"a"], [b"b", b"c"]]


@pytest.mark.parametrize("size", [LONGEST + 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("flags", [LONG, LONG | MORE, LONG | COMMAND])
def test_a_frame_that_is_too_long_gets_no_memory(flags: int, size: int) -> None:
    reader = Reader()
    reader.take(HELLO)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=f"a frame of {size} bytes"):
            reader.take(bytes([flags]) + size.to_bytes(8, "big") + b"begun")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < LONGEST // 2
    assert reader.messages == []


def test_the_longest_frame_may_come() -> None:
    frame = body(LONGEST)
    assert received(HELLO + encode([frame])) == [[frame]]
    assert received(HELLO, encode([frame])[:9], frame) == [[frame]]


def test_a_message_has_a_thousand_frames_but_not_any_number() -> None:
    most = [b"x"] * 1024
    assert received(HELLO + encode(most, most)) == [most, most]
    with pytest.raises(Malformed, match="more than 1024 frames"):
        received(HELLO + encode([*most, b"x"]))
    with pytest.raises(Malformed, match="more than 1024 frames"):
        received(HELLO, *[b"\x01\x00"] * 1024)


def command(name: bytes, rest: bytes = b"", flags: int = COMMAND) -> bytes:
    content = bytes([len(name)]) + name + rest
    if flags & LONG:
        return bytes([flags]) + len(content).to_bytes(8, "big") + content
    return bytes([flags, len(content)]) + content


def test_commands_are_passed_over() -> None:
    some = [
        command(b"READY", b"\x0bSocket-Type\x00\x00\x00\x06DEALER"),
        command(b"PING", b"\x00\x0acontext"),
        command(b"PONG", b"context"),
        command(b"SUBSCRIBE", b"x"),
        command(b"OTHER", bytes(30_000), COMMAND | LONG),
        command(b"", b""),
        b"\x04\x00",
    ]
    stream = b"".join(one + encode([b"%d" % number, b"x"]) for number, one in enumerate(some))
    expected = [[b"%d" % number, b"x"] for number in range(len(some))]
    assert received(HELLO + stream) == expected
    assert received(HELLO, *(stream[place : place + 999] for place in range(0, len(stream), 999))) == expected


def test_a_message_waits_for_the_handshake() -> None:
    reader = Reader()
    reader.take(GREETING)
    with pytest.raises(Malformed, match="before it was ready"):
        reader.take(encode([b"x"]))
    reader = Reader()
    reader.take(GREETING)
    assert reader.ready == 0
    reader.take(READY)
    assert reader.ready == 1


@pytest.mark.parametrize("flags", [8, 16, 32, 64, 128, 0xFF, 8 | MORE, 8 | COMMAND])
def test_unknown_flags_are_wrong(flags: int) -> None:
    long = flags & LONG
    with pytest.raises(Malformed):
        received(HELLO + bytes([flags]) + (1).to_bytes(8 if long else 1, "big") + b"x")


@pytest.mark.parametrize("flags", [COMMAND, COMMAND | LONG])
@pytest.mark.parametrize("reason", [b"\x00", b"\x0bbad address", bytes(20_000)])
def test_an_error_ends_it(reason: bytes, flags: int) -> None:
    if len(reason) > 200 and not flags & LONG:
        reason = reason[:200]
    with pytest.raises(Malformed):
        received(HELLO + command(b"ERROR", reason, flags))


def greeting(signature: bytes = b"\xff" + bytes(8) + b"\x7f", major: int = 3, mechanism: bytes = b"NULL") -> bytes:
    return (signature + bytes([major, 0]) + mechanism.ljust(20, b"\0")).ljust(64, b"\0")


def test_a_greeting_of_any_zmtp_3_will_do() -> None:
    later = bytearray(greeting())
    later[11] = 1  # the minor version
    later[1:9] = b"\0\0\0\0\0\0\0\x01"
    for each in (bytes(later), greeting(major=4)):
        assert received(each + READY + encode([b"x"])) == [[b"x"]]
    assert greeting() == GREETING


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"\x01\x00\x05\x01hello\x03\x00ab".ljust(64, b"x"), id="zmtp 1"),
        pytest.param(greeting(major=1), id="zmtp 2"),
        pytest.param(greeting(major=0), id="zmtp 1 with a signature"),
        pytest.param(greeting(mechanism=b"CURVE"), id="curve"),
        pytest.param(greeting(mechanism=b"PLAIN"), id="plain"),
        pytest.param(greeting(mechanism=b"NULLABLE"), id="nullable"),
        pytest.param(greeting(mechanism=b""), id="no mechanism"),
        pytest.param(greeting(signature=b"\xff" + bytes(9)), id="half a signature"),
        pytest.param(greeting(signature=bytes(9) + b"\x7f"), id="the other half"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: any\r\nAccept: */*\r\n\r\n", id="http"),
        pytest.param(bytes(64), id="nothing"),
    ],
)
def test_another_greeting_is_wrong(begin: bytes) -> None:
    with pytest.raises(Malformed):
        received(begin)
    with pytest.raises(Malformed):
        received(*(begin[place : place + 1] for place in range(len(begin))))


@settings(max_examples=500, deadline=None)
@given(
    begin=st.sampled_from([b"", GREETING, HELLO, HELLO + encode([b"a"], [b"b", b"c"])]),
    pieces=st.lists(st.binary(max_size=100) | st.sampled_from([b"\x02", b"\x03", b"\x04", bytes(7)]), max_size=30),
)
@example(begin=HELLO, pieces=[b"\x02", bytes(8), b"\x02", bytes(6) + b"\x4e\x20", bytes(20_001)])
def test_random_bytes_are_at_worst_malformed(begin: bytes, pieces: list[bytes]) -> None:
    with contextlib.suppress(Malformed):
        received(begin, *pieces)


@given(size=st.integers(0, 1 << 40), more=st.booleans())
def test_a_prefix_says_how_long_a_frame_is(size: int, more: bool) -> None:
    head = prefix(size, more)
    assert head[0] & MORE == more
    assert (len(head), head[0] & ~MORE) == ((2, 0) if size < 256 else (9, LONG))
    assert int.from_bytes(head[1:], "big") == size
