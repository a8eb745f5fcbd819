"""The router: what the receiver does with each message of a session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic

import zmq

from rpclib_zmq import header
from rpclib_zmq.header import ALL, DATA, FIXED, INBOX, MAGIC, NO_TAG, ONE, TAKEN, UNPACK, Header, age, is_name
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.limits import COPIED_BELOW, HELD_BYTES
from rpclib_zmq.receiver.message import Message, Payload, Taker, Tally
from rpclib_zmq.receiver.place import Everyone, Place, Shared
from rpclib_zmq.receiver.session import Debts, Session, Subscription

log = logging.getLogger("rpclib_zmq")

NOBODY = "nobody serves it"


def _call(then: Callable[[], object]) -> None:
    then()


class Router:
    """The sessions, the places they subscribe to, and the way of every message between them.

    It does no waiting: the loop calls it for each message, once after each batch (`settle`) and every
    `limits.TICK` (`tick`).
    """

    def __init__(self, node: str, socket: zmq.Socket[bytes]) -> None:
        self.node = node
        self.tally = Tally()
        self.sessions: dict[bytes, Session] = {}
        self.numbered: dict[int, Session] = {}
        self.places: dict[bytes, Place] = {}
        self.changed: Callable[[Place], None] = lambda place: None
        """Told when the takers of a place change."""
        self.elsewhere: Callable[[Message, float], bool] = lambda message, now: False
        """Asked to pass on a reply whose inbox is on another machine."""
        self.announced: Callable[[Place, Callable[[], object]], None] = lambda place, then: _call(then)
        """Asked to call back once everybody knows who serves a place."""
        self._socket = socket
        self._due: set[Session] = set()
        self._next = 1
        self._handlers: dict[int, Callable[[Session, Header, float], None]] = {
            header.SUBSCRIBE: self._subscribe,
            header.STOP: self._stop,
            header.RELEASE: self._release,
            header.COUNT: self._count,
            header.PING: lambda session, head, now: None,
            header.BYE: self._bye,
            header.LEAVING: self._hushed,
        }

    def greet(self, peer: bytes, pid: int, program: str, now: float) -> Session:
        """Begin a session."""
        session = Session(self._socket, peer, self._next, pid, program, self.tally, self._due)
        session.heard = now
        self._next += 1
        self.sessions[peer] = session
        self.numbered[session.number] = session
        log.info("%s began", session)
        return session

    def receive(self, session: Session, data: bytes, payload: zmq.Frame, now: float) -> None:
        """Act on one message of a session."""
        session.heard = now
        if session.stalled:
            self._resume(session, now)
        if len(data) < FIXED or not data.startswith(MAGIC):
            self._evict(session, "it sent a message that is none")
            return
        _, kind, ttl, waited, number, value, tag = UNPACK(data)
        if kind == DATA:
            body: Payload = payload.bytes if len(payload) < COPIED_BELOW else payload
            sent = now - age(value, now) / 1000
            session.waiting += 1
            if session.waiting > limits.SESSION:
                self._evict(session, "it sends faster than it may")
                return
            message = Message(session, session.number, number, tag, data[FIXED:], body, sent, ttl, waited)
            self.accept(message, session.debts, now)
        elif kind == TAKEN:
            subscription = session.subscriptions.get(number)
            if subscription is not None:
                subscription.took(value)
                subscription.place.serve(subscription, now)
        else:
            handler = self._handlers.get(kind)
            if handler is None:
                self._evict(session, f"it sent a message of the unknown kind {kind}")
            else:
                handler(session, Header(kind, ttl, waited, number, value, tag, data[FIXED:]), now)

    def put(self, message: Message, now: float) -> None:
        """Bring a message to its place, or back."""
        self.tally.held += message.size
        place = self.places.get(message.name)
        if self.tally.held > HELD_BYTES:
            self.give_back(message, "the receiver's queues are full")
        elif place is not None:
            if not place.put(message, now):
                self.give_back(message, NOBODY)
        elif message.name[:1] != b"I" or not self.elsewhere(message, now):
            self.give_back(message, NOBODY)

    def give_back(self, message: Message, reason: str) -> None:
        """Tell who asked that the message reached nobody. A message to all may reach nobody and is just dropped."""
        if message.redelivered:
            self.lose(message)
        elif message.name[0] != ALL:
            self.tally.events["undeliverable"] += 1
            message.asker.undeliverable(message, reason)
        message.release()

    def join(self, name: bytes) -> Place:
        """The place of that name, made if need be, for a taker to be added."""
        place = self.places.get(name)
        if place is None:
            place = self.places[name] = (Shared if name[0] == ONE else Everyone)(name, self.tally)
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
        """After a batch: tell sessions what left the queues, and bury those that are gone."""
        while self._due:
            session = self._due.pop()
            if session.gone:
                self.bury(session, "its connection is gone")
            else:
                session.flush()

    def tick(self, now: float) -> None:
        """Heartbeats, silence and expiry."""
        ping = Header(header.PING).encode()
        for session in list(self.sessions.values()):
            silent = now - session.heard
            if silent > limits.DEAD_AFTER and session.unwatch is None:
                self.bury(session, f"it has been silent for {silent:.0f} s")
            elif silent > limits.STALLED_AFTER and not session.stalled:
                self._stall(session)
            session.debts.forget_load(now)
            session.transmit(ping)
        for place in list(self.places.values()):
            place.expire(now)
        self.settle()

    def bury(self, session: Session, reason: str) -> None:
        """End a session that broke off. What it had taken is lost; what it had not goes to others, marked."""
        log.warning("%s ended: %s", session, reason)
        session.gone = True
        now = monotonic()
        for subscription in session.subscriptions.values():
            for message in subscription.untaken:
                message.redelivered = True
            self._pass_on(session, subscription, now)
        self._end(session)

    def _end(self, session: Session) -> None:
        session.subscriptions.clear()
        self.sessions.pop(session.peer, None)
        self.numbered.pop(session.number, None)
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
        session.transmit(Header(header.REFUSED, name=reason.encode()).encode())
        self.bury(session, reason)

    def accept(self, message: Message, debts: Debts, now: float) -> None:
        """Bring a message to its place; ``debts`` are its sender's, who may answer with it."""
        if message.tag != NO_TAG:
            owed = debts.settle(message.tag)
            if owed is not None and message.name[0] == ONE:  # a request passed on: its asker waits on
                message.asker, message.origin = owed.asker, owed.origin
        self.put(message, now)

    def _subscribe(self, session: Session, head: Header, now: float) -> None:
        name = head.name
        problem = None
        if not is_name(name):
            problem = "not a name that can be served"
        elif name[0] == INBOX and not name.startswith(header.inbox_prefix(self.node, session.number)):
            problem = "not an inbox of this session"
        elif head.number in session.subscriptions or len(session.subscriptions) >= limits.SUBSCRIPTIONS:
            problem = "too many subscriptions"
        if problem:
            session.transmit(Header(header.REFUSED, number=head.number, name=problem.encode()).encode())
            return
        place = self.join(name)
        subscription = Subscription(session, head.number, head.value, place)
        session.subscriptions[head.number] = subscription
        place.add(subscription)
        place.serve(subscription, now)
        self.changed(place)
        answer = Header(header.SUBSCRIBED, number=head.number).encode()
        self.announced(place, lambda: session.transmit(answer))

    def _stop(self, session: Session, head: Header, now: float) -> None:
        subscription = session.subscriptions.get(head.number)
        if subscription is not None:
            self.leave(subscription.place, subscription, (), now)
        session.transmit(Header(header.STOPPED, number=head.number).encode())

    def _release(self, session: Session, head: Header, now: float) -> None:
        subscription = session.subscriptions.pop(head.number, None)
        if subscription is not None:
            self._pass_on(session, subscription, now)

    def _pass_on(self, session: Session, subscription: Subscription, now: float) -> None:
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

    def _count(self, session: Session, head: Header, now: float) -> None:
        place = self.places.get(head.name)
        count = sum(taker.count for taker in place.takers) if place else 0
        session.transmit(Header(header.COUNTED, number=head.number, value=count).encode())

    def _bye(self, session: Session, head: Header, now: float) -> None:
        session.transmit(header.greeting(header.BYE))
        session.gone = True
        for subscription in session.subscriptions.values():
            self._pass_on(session, subscription, now)
        self._end(session)
        log.info("%s ended", session)

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
            session.hush(not session.debts)
            done = done and session.quiet
        self.settle()
        return done

    def dismiss(self) -> None:
        """Tell every session that this is the end; each confirms when it has read all that was sent to it."""
        for session in list(self.sessions.values()):
            session.transmit(header.greeting(header.BYE))
        self.settle()

    def _hushed(self, session: Session, head: Header, now: float) -> None:
        session.quiet = session.hushed and head.number == session.hushes
