"""What the receiver makes of batches: the router, with sessions made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import NO_TAG, stamp
from rpclib_zmq.protocol.records import FLUSH_AT, HEAD, LARGE, LONGEST, Record, read
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver.elsewhere import Nowhere
from rpclib_zmq.receiver.router import Router
from rpclib_zmq.receiver.session import Session

NODE = "ab" * 8
EVERY_LANE = 0
u32 = st.integers(0, 0xFFFFFFFF)


def _records(data: bytes) -> Iterator[Record]:
    offset = 0
    while offset < len(data):
        record, offset = read(data, offset)
        yield record


class Peer:
    """The other end of a session: keeps what it is sent, while it is there."""

    def __init__(self) -> None:
        self.messages: list[list[Frame]] = []
        self.left = False

    def send(self, frames: list[Frame]) -> bool:
        if not self.left:
            self.messages.append(frames)
        return not self.left


class Desk:
    """A router and two sessions: an asker with an inbox, and a worker."""

    def __init__(self) -> None:
        self._peers: dict[Session, Peer] = {}
        self.router = Router(NODE, Nowhere())
        self.asker, self.worker = self.session(), self.session()
        self.inbox = header.inbox_prefix(NODE, self.asker.number) + b"1"
        self.ask(self.asker, Record(header.SUBSCRIBE, 1, name=self.inbox))
        self.ask(self.worker, Record(header.SUBSCRIBE, 1, value=100, name=b"Oe/t/"))
        assert [self.heard(session)[0].kind for session in (self.asker, self.worker)] == [header.SUBSCRIBED] * 2

    def session(self) -> Session:
        peer = Peer()
        session = self.router.greet(peer.send, 1, "test", monotonic())
        self._peers[session] = peer
        return session

    def ask(self, session: Session, *batch: Record | bytes, frames: list[Frame] | None = None) -> None:
        data = b"".join(record.encode() if isinstance(record, Record) else record for record in batch)
        self.router.receive(session, [data, *(frames or [])], monotonic())
        self.router.flush()

    def heard(self, session: Session) -> list[Record]:
        """What was sent to a session since the last time, payloads filled in."""
        found = []
        for data, *frames in self._peers[session].messages:
            found += [
                record if record.size < LARGE else record._replace(payload=bytes(frames.pop(0)))
                for record in _records(bytes(data))
            ]
            assert not frames
        self._peers[session].messages.clear()
        return found

    def leave(self, session: Session) -> None:
        """End a session's connection: nothing can be sent to it any more."""
        self._peers[session].left = True


@pytest.fixture
def desk() -> Desk:
    return Desk()


def data(name: bytes, payload: bytes = b"", tag: bytes = NO_TAG, lane: int = 1) -> Record:
    return Record(header.DATA, lane, value=stamp(monotonic()), tag=tag, payload=payload, name=name)


EDGES = sorted({edge + step for edge in (LARGE, FLUSH_AT, 2 * FLUSH_AT) for step in (-200, -HEAD, -1, 0, 1)})


@pytest.mark.parametrize("size", [0, 1, *EDGES])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_was_sent_to_a_worker_that_died_is_marked(desk: Desk, size: int, before: int) -> None:
    """At most once, for every size: a message that fills a batch is sent with it, and may have been read."""
    sent = [data(b"Oe/t/", b"b" * 100)] * before + [data(b"Oe/t/", b"x" * size)]
    frames: list[Frame] = [record.payload for record in sent if len(record.payload) >= LARGE]
    batch = [
        record if len(record.payload) < LARGE else record._replace(payload=b"", size=len(record.payload))
        for record in sent
    ]
    desk.ask(desk.asker, *batch, frames=frames)
    assert [record.kind for record in desk.heard(desk.worker)] == [header.DELIVER] * (before + 1)
    successor = desk.session()
    desk.ask(successor, Record(header.SUBSCRIBE, 1, value=100, name=b"Oe/t/"))
    desk.heard(successor)
    desk.leave(desk.worker)
    desk.router.drop(desk.worker, "it was killed")
    desk.router.flush()
    got = [(record.kind, len(record.payload)) for record in desk.heard(successor)]
    assert got == [(header.REDELIVER, len(record.payload)) for record in sent]


def test_a_call_goes_there_and_back(desk: Desk) -> None:
    tags = [b"%016d" % number for number in range(50)]
    desk.ask(desk.asker, *(data(b"Oe/t/", b"ask", tag) for tag in tags))
    got = desk.heard(desk.worker)
    assert [(record.kind, record.number, record.tag, record.payload) for record in got] == [
        (header.DELIVER, 1, tag, b"ask") for tag in tags
    ]
    assert (len(desk.worker.unanswered), len(desk.worker.subscriptions[1].untaken)) == (50, 50)
    desk.ask(
        desk.worker, Record(header.TAKEN, 1, value=50, ttl=150), *(data(desk.inbox, b"!", tag) for tag in tags)
    )
    assert [record.tag for record in desk.heard(desk.asker)] == tags
    assert (len(desk.worker.unanswered), len(desk.worker.subscriptions[1].untaken)) == (0, 0)
    assert (desk.worker.subscriptions[1].messages, desk.worker.subscriptions[1].bytes) == (0, 0)
    assert (desk.router.stats.held, desk.asker.waiting) == (0, 0)


def test_large_payloads_keep_their_places(desk: Desk) -> None:
    bodies = [b"a" * LARGE, b"small", b"b" * (LARGE + 1), b"c" * (LARGE - 1)]
    batch = [data(b"Oe/t/", body) for body in bodies]
    batch = [
        record if len(record.payload) < LARGE else record._replace(payload=b"", size=len(record.payload))
        for record in batch
    ]
    desk.ask(desk.asker, *batch, frames=[bodies[0], bodies[2]])
    assert [record.payload for record in desk.heard(desk.worker)] == bodies


def test_a_batch_that_could_not_be_sent_is_not_called_redelivered(desk: Desk) -> None:
    """What a worker had been sent may have run; what waited for the end of the turn has not."""
    desk.ask(desk.asker, data(b"Oe/t/", b"sent"))
    assert len(desk.heard(desk.worker)) == 1
    desk.leave(desk.worker)
    heir = desk.session()
    heir_batch = Record(header.SUBSCRIBE, 1, value=100, name=b"Oe/t/").encode()
    desk.router.receive(desk.asker, [data(b"Oe/t/", b"unsent").encode()], monotonic())
    desk.router.receive(heir, [heir_batch], monotonic())
    desk.router.flush()
    desk.router.drop(desk.worker, "its connection is gone")
    desk.router.flush()
    got = [(record.kind, record.payload) for record in desk.heard(heir) if record.kind != header.SUBSCRIBED]
    assert got == [(header.REDELIVER, b"sent"), (header.DELIVER, b"unsent")]
    assert desk.worker.number not in desk.router.sessions


def test_credit_in_pieces_reports_what_left_the_queues(desk: Desk) -> None:
    desk.ask(desk.asker, *(data(b"Oe/t/", b"x") for _ in range(500)))
    assert (len(desk.heard(desk.worker)), desk.asker.waiting, desk.router.stats.held) == (100, 400, 400)
    for _ in range(5):
        desk.ask(desk.worker, Record(header.TAKEN, 1, value=100, ttl=100))
    assert len(desk.heard(desk.worker)) == 400
    told = [record for record in desk.heard(desk.asker) if record.kind == header.ACCEPTED]
    for lane in (1, EVERY_LANE):
        assert sum(record.value for record in told if record.number == lane) == 500
        assert sum(record.ttl for record in told if record.number == lane) == 500
    assert (desk.asker.waiting, desk.router.stats.held) == (0, 0)


def test_many_lanes_are_told_of_together_and_singly_at_the_tick(desk: Desk) -> None:
    for lane in range(1, 200):
        desk.ask(desk.asker, data(b"Oe/t/", b"x", lane=lane))
        desk.ask(desk.worker, Record(header.TAKEN, 1, value=1, ttl=1))
    told = [(record.number, record.value) for record in desk.heard(desk.asker) if record.kind == header.ACCEPTED]
    assert told == [(EVERY_LANE, 100)]
    desk.router.tick(monotonic())
    told = [(record.number, record.value) for record in desk.heard(desk.asker) if record.kind == header.ACCEPTED]
    assert sorted(told) == [(EVERY_LANE, 99), *((lane, 1) for lane in range(1, 200))]


LARGE_ONE = Record(header.DATA, 1, size=LARGE, name=b"Oe/t/")


@pytest.mark.parametrize(
    ("batch", "frames", "reason"),
    [
        (b"x", [], "40 bytes"),
        (data(b"Oe/t/", b"x" * 50).encode()[:-1], [], "longer than the batch"),
        (Record(header.SUBSCRIBE, 9, name=b"Oe/t/x").encode()[:-1], [], "longer than its batch"),
        (Record(header.DATA, 1, size=100, name=b"").encode(), [], "longer than the batch"),
        (Record(200).encode(), [], "unknown kind 200"),
        (b"RZ" + bytes(60), [], "unknown kind 82"),
        (LARGE_ONE.encode(), [], "not as announced"),
        (LARGE_ONE.encode(), [b"x"], "not as announced"),
        (LARGE_ONE.encode(), [b"x" * LARGE] * 2, "not announced"),
        (Record(header.PING, size=LARGE).encode(), [b"x" * LARGE], "not announced"),
        (data(b"Oe/t/").encode(), [b"x"], "not announced"),
        (Record(header.PING).encode() * (LONGEST // HEAD + 1), [], "too long"),
    ],
)
def test_a_broken_batch_ends_its_session_and_says_why(
    desk: Desk, batch: bytes, frames: list[Frame], reason: str
) -> None:
    desk.ask(desk.asker, data(b"Oe/t/", b"before"), frames=None)
    desk.ask(desk.asker, batch, frames=frames)
    refused = desk.heard(desk.asker)[-1]
    assert (refused.kind, refused.number) == (header.REFUSED, 0)
    assert reason in refused.name.decode()
    assert desk.asker.number not in desk.router.sessions
    assert desk.heard(desk.worker)[0].payload == b"before"


def test_thousands_of_records_are_one_batch(desk: Desk) -> None:
    desk.ask(desk.asker, *[Record(header.PING)] * 5000)
    assert desk.asker.number in desk.router.sessions


def test_a_message_without_a_name_comes_back(desk: Desk) -> None:
    desk.ask(desk.asker, data(b"", b"whither", b"t" * 16))
    [back] = desk.heard(desk.asker)
    assert (back.kind, back.payload, back.tag) == (header.UNDELIVERABLE, b"whither", b"t" * 16)


def test_what_follows_a_farewell_is_ignored(desk: Desk) -> None:
    desk.ask(desk.asker, Record(header.BYE), data(b"Oe/t/", b"late"), Record(200))
    assert [record.kind for record in desk.heard(desk.asker)] == [header.BYE]
    assert desk.heard(desk.worker) == []


def test_a_receiver_does_not_leave_while_a_stalled_session_has_not_got_its_replies(desk: Desk) -> None:
    desk.ask(desk.asker, data(b"Oe/t/", b"ask", b"t" * 16))
    desk.worker.heard = monotonic() + 60
    desk.router.tick(monotonic() + 3)
    assert (desk.asker.stalled, desk.worker.stalled) == (True, False)
    desk.ask(desk.worker, Record(header.TAKEN, 1, value=1, ttl=3), data(desk.inbox, b"!", b"t" * 16))

    def confirmed(session: Session) -> None:
        pauses = [record.number for record in desk.heard(session) if record.kind == header.LEAVING]
        desk.ask(session, *(Record(header.LEAVING, number) for number in pauses))

    assert not desk.router.wind_down()
    confirmed(desk.worker)
    desk.asker.confirm(1)
    assert not desk.router.wind_down()
    desk.ask(desk.asker, Record(header.PING))
    assert [record.payload for record in desk.heard(desk.asker) if record.kind == header.DELIVER] == [b"!"]
    assert desk.router.wind_down()


kinds = st.sampled_from([header.DATA, header.TAKEN, header.SUBSCRIBE, header.STOP, header.RELEASE, header.COUNT])
likely = st.builds(
    Record,
    kind=kinds,
    number=st.integers(0, 3),
    ttl=st.integers(0, 5) | u32,
    waited=u32,
    value=st.integers(0, 5) | u32,
    size=st.sampled_from([0, 0, 0, 4, LARGE]),
    tag=st.sampled_from([NO_TAG, b"a" * 16, b"b" * 16]),
    payload=st.binary(max_size=3),
    name=st.sampled_from([b"Oe/t/", b"Ae/t", b"Oe/none/", b"I" + NODE.encode() + b".1.1", b"I", b""]),
)


@settings(max_examples=200, deadline=None)
@given(batches=st.lists(st.lists(likely, max_size=10), max_size=10), cut=st.integers(0, 100))
def test_no_batch_makes_the_router_stumble(batches: list[list[Record]], cut: int) -> None:
    """Whatever sessions send, the last batch perhaps cut off: nothing of it is left once they are gone."""
    desk = Desk()
    one, two = desk.session(), desk.session()
    for number, batch in enumerate(batches):
        session = (one, two)[number % 2]
        data = b"".join(record.encode() for record in batch)
        if session.number in desk.router.sessions:
            desk.ask(session, data[: len(data) - cut] if number == len(batches) - 1 else data)
        desk.router.tick(monotonic())
    for session in (one, two):
        if session.number in desk.router.sessions:
            desk.ask(session, Record(header.BYE))
    worker = desk.worker.subscriptions[1]
    desk.ask(desk.worker, Record(header.TAKEN, 1, value=worker.messages, ttl=worker.bytes))
    assert (worker.messages, worker.bytes, len(worker.untaken)) == (0, 0, 0)
    assert (desk.router.stats.held, list(desk.router.sessions)) == (0, [1, 2])
    assert set(desk.router.destinations) == {b"Oe/t/", desk.inbox}
