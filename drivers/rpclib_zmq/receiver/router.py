"""The router: what the receiver does with each message of a session."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from rpclib_zmq import header
from rpclib_zmq.header import ALL, DATA, INBOX, NO_TAG, ONE, TAKEN
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.debts import Debts
from rpclib_zmq.receiver.limits import HELD_BYTES, REPORTED, REPORTED_BYTES
from rpclib_zmq.receiver.message import Message, Taker, Tally
from rpclib_zmq.receiver.place import Everyone, Inbox, Place, Shared
from rpclib_zmq.receiver.session import Session, Subscription
from rpclib_zmq.records import HEAD, HOP, LARGE, LONGEST, Broken, Record, read
from rpclib_zmq.zmtp import Frame

log = logging.getLogger("rpclib_zmq")

NOBODY = "nobody serves it"
_PLACES: dict[int, Callable[[bytes, Tally], Place]] = {ONE: Shared, ALL: Everyone, INBOX: Inbox}
_UNPACK = struct.Struct("<BxHII12x16s").unpack_from
_UNPACK_TAKEN = struct.Struct("<2xHIII4xI").unpack_from


def _call(then: Callable[[], object]) -> None:
    then()


class Router:
    """The sessions, the places they subscribe to, and the way of every message between them.

    It does no waiting: the loop calls it for each batch, once when there are no more (`settle`) and every
    `limits.TICK` (`tick`).
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.tally = Tally()
        self.sessions: dict[int, Session] = {}
        """By number."""
        self.places: dict[bytes, Place] = {}
        self.changed: Callable[[Place], None] = lambda place: None
        """Told when the takers of a place change."""
        self.elsewhere: Callable[[Message, float], bool] = lambda message, now: False
        """Asked to pass on a reply whose inbox is on another machine."""
        self.announced: Callable[[Place, Callable[[], object]], None] = lambda place, then: _call(then)
        """Asked to call back once everybody knows who serves a place."""
        self._due: set[Session] = set()
        self._next = 1
        self.requests: dict[int, Callable[[Session, Record, float], None]] = {}
        """What to do with records that are no messages, by kind."""

    def greet(self, send: Callable[[list[Frame]], bool], pid: int, program: str, now: float) -> Session:
        """Begin a session. ``send(frames)`` sends it a message, and is False when its connection is gone."""
        session = Session(send, self._next, pid, program, self.tally, self._due)
        session.heard = now
        self._next += 1
        self.sessions[session.number] = session
        log.info("%s began", session)
        return session

    def receive(self, session: Session, frames: list[Frame], now: float) -> None:
        """Act on one batch of a session."""
        data = bytes(frames[0])
        session.heard = now
        if session.stalled:
            self._resume(session, now)
        try:
            if len(data) > LONGEST:
                raise Broken("it is too long")
            self._read(session, data, iter(frames[1:]), now)
        except Broken as error:
            self._evict(session, f"it sent a batch that is none: {error}")
        if session.waiting > limits.SESSION and not session.gone:
            self._evict(session, "it sends faster than it may")

    def _read(self, session: Session, data: bytes, frames: Iterator[Frame], now: float) -> None:
        """The way of every message: few calls, and what can be is done once for the batch."""
        find, lanes, debts = self.places.get, session.account.lanes, session.debts
        messages = total = offset = 0
        end = len(data)
        while offset < end:
            kind, length, lane, size, tag = _UNPACK(data, offset)
            if kind != DATA:
                offset = self._asked(session, data, offset, now)
                continue
            start, middle, frame = offset + HOP, offset + HEAD, None
            if size < LARGE:
                middle += size
            elif (frame := next(frames, None)) is None or len(frame) != size:
                raise Broken("a frame is not as announced")
            offset = middle + length
            if offset > end:
                raise Broken("a record is longer than the batch")
            content, name = data[start:middle], data[middle:offset]
            place = find(name)
            if type(place) is Inbox and place.forward(content, frame, size):
                if debts.owed:
                    debts.settle(tag)
            else:
                message = Message(session, session.number, lane, tag, name, content, frame, size)
                self.accept(message, debts, now)
                if message.holds:
                    continue
            counts = lanes.get(lane) or lanes.setdefault(lane, [0, 0])
            counts[0] += 1
            counts[1] += size
            if counts[0] >= REPORTED or counts[1] >= REPORTED_BYTES:
                session.account.much(lane)
            messages += 1
            total += size
        if messages:
            session.account.added(messages, total)
            session.accounted()
        if next(frames, None) is not None:
            raise Broken("a frame was not announced")

    def _asked(self, session: Session, data: bytes, offset: int, now: float) -> int:
        """Act on a record that is no message; returns where the next one begins."""
        if data[offset] == TAKEN:  # as many as messages, where a session has many subscriptions
            length, number, nothing, size, messages = _UNPACK_TAKEN(data, offset)
            if length or nothing:
                raise Broken("a record that tells what was taken has a name or a payload")
            subscription = session.subscriptions.get(number)
            if subscription is not None and subscription.took(messages, size):
                subscription.place.serve(subscription, now)
            return offset + HEAD
        record, after = read(data, offset)
        request = self.requests.get(record.kind)
        if request is None:
            raise Broken(f"a record is of the unknown kind {record.kind}")
        request(session, record, now)
        return after if session.number in self.sessions else len(data)

    def accept(self, message: Message, debts: Debts, now: float) -> None:
        """Bring a message to its place, or back; ``debts`` are its sender's, who may answer with it."""
        name = message.name
        if debts.owed:
            owed = debts.settle(message.tag)
            if owed is not None and name[:1] == b"O":  # a request passed on: its asker waits on
                message.asker, message.origin = owed.asker, owed.origin
        place = self.places.get(name)
        if self.tally.held > HELD_BYTES:
            self.give_back(message, "the receiver's queues are full")
        elif place is not None:
            if not place.put(message, now):
                self.give_back(message, NOBODY)
        elif name[:1] != b"I" or not self.elsewhere(message, now):
            self.give_back(message, NOBODY)

    def give_back(self, message: Message, reason: str) -> None:
        """Tell who asked that the message reached nobody. A message to all may reach nobody and is just dropped."""
        if message.redelivered:
            self.lose(message)
        elif message.name[:1] != b"A":
            self.tally.events["undeliverable"] += 1
            message.asker.undeliverable(message, reason)
        message.release()

    def join(self, name: bytes) -> Place:
        """The place of that name, made if need be, for a taker to be added."""
        place = self.places.get(name)
        if place is None:
            place = self.places[name] = _PLACES[name[0]](name, self.tally)
        return place

    def leave(self, place: Place, taker: Taker, untaken: Iterable[Message], now: float) -> None:
        """Take a taker out of its place. What it did not take goes to others, or back."""
        place.remove(taker)
        place.put_back(list(untaken), now)
        for message in place.orphans():
            self.give_back(message, "the last one who served it left")
        if not place.takers:
            self.places.pop(place.name, None)
        if taker.local:
            self.changed(place)

    def settle(self) -> None:
        """After a batch: send what sessions are to get."""
        while self._due:
            self._due.pop().flush()

    def tick(self, now: float) -> None:
        """Heartbeats, silence and expiry."""
        for session in list(self.sessions.values()):
            silent = now - session.heard
            if silent > limits.DEAD_AFTER and session.unwatch is None:
                self.bury(session, f"it has been silent for {silent:.0f} s")
            elif silent > limits.STALLED_AFTER and not session.stalled:
                self._stall(session)
            session.debts.forget_load(now)
            session.account.close()
            session.say(header.PING)
        for place in list(self.places.values()):
            place.expire(now)
        self.settle()

    def bury(self, session: Session, reason: str) -> None:
        """End a session that broke off. What it had taken is lost; what it had not goes to others, marked."""
        log.warning("%s ended: %s", session, reason)
        session.gone = True
        now, unsent = monotonic(), set(session.unsent)
        for subscription in session.subscriptions.values():
            for message in subscription.untaken:
                message.redelivered = message.redelivered or message not in unsent
            self.pass_on(session, subscription, now)
        self.end(session)

    def end(self, session: Session) -> None:
        """Forget a session. What it had taken and not answered is lost."""
        session.subscriptions.clear()
        self.sessions.pop(session.number, None)
        self._due.discard(session)
        if session.unwatch is not None:
            session.unwatch()
        for message in session.debts.drain():
            self.lose(message)

    def lose(self, message: Message) -> None:
        """The message may have run and will not be answered."""
        self.tally.events["lost"] += 1
        if message.tag != NO_TAG:
            message.asker.worker_lost(message)

    def _evict(self, session: Session, reason: str) -> None:
        session.say(header.REFUSED, name=reason.encode())
        session.flush()
        self.bury(session, reason)

    def pass_on(self, session: Session, subscription: Subscription, now: float) -> None:
        """Give what a subscription did not take to others, or back."""
        untaken = list(subscription.untaken)
        for message in untaken:
            if message.tag != NO_TAG:
                session.debts.settle(message.tag)
        place = self.places.get(subscription.place.name)
        if place is None:  # stopped before, and the last
            for message in untaken:
                self.give_back(message, "the last one who served it left")
        else:
            self.leave(place, subscription, untaken, now)

    def _stall(self, session: Session) -> None:
        log.warning("%s has stopped responding: it is handed nothing more", session)
        session.stalled = True
        for subscription in session.subscriptions.values():
            subscription.stalled = True
            subscription.place.stall(subscription)

    def _resume(self, session: Session, now: float) -> None:
        log.info("%s responds again", session)
        session.stalled = False
        for subscription in session.subscriptions.values():
            subscription.stalled = False
            subscription.place.serve(subscription, now)

    def wind_down(self) -> bool:
        """Ask for nothing new from sessions that owe no answer. True: nothing waits, runs or is on its way."""
        done = not self.tally.held
        for session in list(self.sessions.values()):
            session.hush(not session.busy)
            done = done and session.quiet and not session.stalled  # else replies wait for it, at nobody's expense
        self.settle()
        return done

    def dismiss(self) -> None:
        """Tell every session that this is the end; each confirms when it has read all that was sent to it."""
        for session in list(self.sessions.values()):
            session.say(header.BYE)
        self.settle()
