"""A wire: it speaks with libzmq both ways, never waits, and loses nothing of what the other end sent."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from rpclib_zmq.protocol.records import LARGE
from rpclib_zmq.protocol.zmtp import Malformed, handshake, prefix
from tests.drivers.zmq.ends import LONGEST, SECONDS, End, Pair, one, two

BIG = 5 * 1024 * 1024
PATTERN = random.Random(2).randbytes(BIG)


@contextmanager
def meeting(end: End, peer: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> Iterator[None]:
    """Both have greeted: libzmq takes no message before it has sent its own greeting."""
    try:
        end.until(lambda: monitor.poll(0), "the handshake")
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        peer.disable_monitor()
        yield
    finally:
        monitor.close()
        end.wire.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield made
    finally:
        made.destroy(linger=0)


Ends = tuple[End, "zmq.Socket[bytes]"]


@pytest.fixture
def dealing(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Ends]:
    """A wire that is connected to a ROUTER."""
    router = context.socket(zmq.ROUTER)
    monitor = router.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    router.bind(f"ipc://{tmp_path}/s")
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(f"{tmp_path}/s")
    end = End(connected)
    with meeting(end, router, monitor):
        yield end, router


@pytest.fixture
def routing(context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path) -> Iterator[Ends]:
    """A wire that a DEALER is connected to."""
    dealer = context.socket(zmq.DEALER)
    monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tmp_path}/s")
        listening.listen()
        dealer.connect(f"ipc://{tmp_path}/s")
        accepted, _ = listening.accept()
    end = End(accepted, b"ROUTER")
    with meeting(end, dealer, monitor):
        yield end, dealer


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The socket of a wire, and the other end, which is read and written by hand."""
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(SECONDS)
        yield here, there


SIZES = [0, 1, 2, 254, 255, 256, 257, LARGE, 16 * 1024, 16 * 1024 + 1, 70_000, 127 * 1024, 1 << 20, BIG]
MESSAGES = [[PATTERN[:size]] for size in SIZES] + [
    [b""] * 5,
    [b"a", b"", PATTERN[: LARGE * 3], b"", b"b"],
    [PATTERN[:300_000], PATTERN[1:300_001]],
    [b"%d" % number for number in range(200)],
    [b"last"],
]


def test_a_router_of_libzmq_gets_and_sends_every_message(dealing: Ends) -> None:
    end, router = dealing
    for message in MESSAGES:
        assert end.wire.send(message)
    for message in MESSAGES:
        end.until(lambda: router.poll(0), "the next message")
        peer, *frames = router.recv_multipart()
        assert frames == message
        router.send_multipart([peer, *message])
    end.expect(MESSAGES)


def test_a_dealer_of_libzmq_gets_and_sends_every_message(routing: Ends) -> None:
    end, dealer = routing
    for message in MESSAGES:
        dealer.send_multipart(message)
        assert end.wire.send(message)
    for message in MESSAGES:
        end.until(lambda: dealer.poll(0), "the next message")
        assert dealer.recv_multipart() == message
    end.expect(MESSAGES)


def test_messages_one_at_a_time(routing: Ends) -> None:
    """Each is written and read with nothing before and nothing behind it."""
    end, dealer = routing
    for number, message in enumerate(MESSAGES):
        assert end.wire.send(message)
        end.until(lambda: dealer.poll(0), "it")
        dealer.send_multipart(dealer.recv_multipart())
        end.expect(MESSAGES[: number + 1])


def test_a_sender_never_waits_for_one_that_does_not_read(pair: Pair) -> None:
    sender, receiver = two(pair)
    body = PATTERN[:100_000]
    sent: list[list[bytes]] = []
    for number in range(100):  # shapes that are written in one piece and in many
        sent += [[b"%d" % number], [body, b"", b"%d" % number], [b""], [body]]
    for message in sent:
        assert sender.wire.send(message)
    assert sender.wanted == [True], "asked once, and not again while it waits"
    while sender.wire.write():
        receiver.read_all()
    receiver.read_all()
    assert receiver.messages == sent
    assert sender.wire.send([b"more"])
    assert sender.wanted == [True]
    receiver.read_all()
    assert receiver.messages[-1] == [b"more"]


def test_more_pieces_than_are_written_at_once(pair: Pair) -> None:
    sender, receiver = two(pair)
    message = [b"%d" % number for number in range(1024)]
    assert sender.wire.send(message)
    assert sender.wanted == [], "everything was written"
    receiver.read_all()
    assert receiver.messages == [message]


def test_a_message_waits_until_the_other_end_is_ready(pair: Pair) -> None:
    """libzmq ends a connection on which one comes before."""
    end, other = End(pair[0]), pair[1]
    assert end.wire.send([b"x"])
    assert end.wire.send([b"y", b"z"])
    assert end.wanted == []
    assert other.recv(1000) == handshake(b"DEALER")
    other.sendall(handshake(b"ROUTER"))
    assert end.wire.read()
    assert other.recv(1000) == b"\0\1x\1\1y\0\1z"
    assert end.wanted == []


@pytest.mark.parametrize("unread", [False, True])
def test_what_the_other_end_sent_before_it_closed_is_read(pair: Pair, unread: bool) -> None:
    """Also where it closed without reading, which resets the connection, and sending was what noticed it."""
    here, there = two(pair)
    sent = [[b"%d" % number, PATTERN[:1000]] for number in range(20)] + [[PATTERN[:20_000]]]
    if unread:
        assert here.wire.send([b"never read"])
    else:
        there.read_all()
    for message in sent:
        assert there.wire.send(message)
    assert there.wanted == [], "everything was written"
    there.wire.close()
    if unread:
        while here.wire.send([b"a"]):
            pass
    here.read_all()
    assert here.messages == sent
    assert here.wire.ended


def test_the_end_is_told_after_the_last_message(routing: Ends) -> None:
    end, dealer = routing
    for message in MESSAGES:
        dealer.send_multipart(message)
    dealer.close(linger=int(SECONDS * 1000))
    end.until(lambda: end.wire.ended, "the end")
    assert end.messages == MESSAGES


def test_an_open_connection_with_nothing_to_read_has_not_ended(pair: Pair) -> None:
    end = End(pair[0])
    assert not end.wire.read()
    assert not end.wire.ended
    pair[1].sendall(handshake(b"ROUTER"))
    assert end.wire.read()
    assert not end.wire.read()
    assert not end.wire.ended
    pair[1].close()
    assert not end.wire.read()
    assert end.wire.ended


@pytest.mark.parametrize("message", [[b"x"], [b"x", b"y"], [PATTERN], [PATTERN, PATTERN]])
def test_nothing_can_be_sent_to_an_end_that_closed(pair: Pair, message: list[bytes]) -> None:
    end = one(pair)
    pair[1].close()
    for _ in range(3):
        assert not end.wire.send(message)
    assert end.wanted == []
    assert not end.wire.write()
    end.wire.close(linger=1)


def test_what_waits_for_an_end_that_closes_is_given_up(pair: Pair) -> None:
    end = one(pair)
    assert end.wire.send([PATTERN])
    assert end.wire.write()
    pair[1].close()
    assert not end.wire.write()
    assert not end.wire.send([b"x"])
    assert not end.wire.write()


def test_a_wire_to_nowhere_ends_without_an_error() -> None:
    end = End(socket.socket(socket.AF_UNIX))
    assert not end.wire.send([b"x"])
    assert not end.wire.read()
    assert end.wire.ended
    end.wire.close()


def test_closing_waits_for_an_end_that_reads(pair: Pair) -> None:
    _, there = pair
    end = one(pair)
    sent = [[PATTERN, b"%d" % number] for number in range(3)]
    for message in sent:
        end.wire.send(message)
    assert end.wanted == [True]
    got = bytearray()

    def read_slowly() -> None:
        while data := there.recv(4096):
            got.extend(data)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    end.wire.close(linger=SECONDS)
    reader.join(SECONDS)
    expected = b"".join(prefix(BIG, True) + PATTERN + prefix(1) + last for _, last in sent)
    assert got == handshake(b"DEALER") + expected
    assert end.wire.fileno() == -1


@pytest.mark.parametrize("linger", [0.0, 0.2])
def test_closing_gives_up_when_nobody_reads(pair: Pair, linger: float) -> None:
    end = one(pair)
    end.wire.send([PATTERN])
    began = monotonic()
    end.wire.close(linger)
    assert linger * 0.9 <= monotonic() - began < linger + 5
    assert end.wire.fileno() == -1


def test_closing_waits_for_nothing_when_all_is_written(pair: Pair) -> None:
    end = one(pair)
    end.wire.send([b"x"])
    began = monotonic()
    end.wire.close(SECONDS)
    assert monotonic() - began < SECONDS / 2
    assert pair[1].recv(1000) == handshake(b"DEALER") + b"\0\1x"


def test_what_is_no_message_is_raised_after_those_before_it(pair: Pair) -> None:
    end = End(pair[0])
    pair[1].sendall(handshake(b"ROUTER") + b"\0\1x" + b"\2" + (LONGEST + 1).to_bytes(8, "big"))
    with pytest.raises(Malformed, match="16777217 bytes"):
        end.read_all()
    assert end.messages == [[b"x"]]


def test_a_long_frame_is_not_copied(pair: Pair) -> None:
    """It is read where it stays."""
    end, other = two(pair)
    other.wire.send([PATTERN])
    while not end.messages:
        other.wire.write()
        end.wire.read()
    [[frame]] = end.messages
    assert isinstance(frame, bytearray)
    assert frame == PATTERN
