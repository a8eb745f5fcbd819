"""The router: moves the messages between sessions and destinations."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import ALL, DATA, INBOX, NO_TAG, ONE, TAKEN
from rpclib_zmq.protocol.records import HEAD, HOP, LARGE, LONGEST, Broken, read
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.destination import Destination, Everyone, Inbox, Shared
from rpclib_zmq.receiver.elsewhere import Elsewhere
from rpclib_zmq.receiver.limits import HELD_BYTES, REPORTED, REPORTED_BYTES
from rpclib_zmq.receiver.message import Consumer, Message, Stats
from rpclib_zmq.receiver.requests import HANDLERS
from rpclib_zmq.receiver.session import Session, Subscription
from rpclib_zmq.receiver.unanswered import Unanswered

log = logging.getLogger("rpclib_zmq")

NOBODY = "nobody serves it"
_DESTINATIONS: dict[int, Callable[[bytes, Stats], Destination]] = {ONE: Shared, ALL: Everyone, INBOX: Inbox}
_UNPACK = struct.Struct("<BxHII12x16s").unpack_from
_UNPACK_TAKEN = struct.Struct("<2xHIII4xI").unpack_from


class Router:
    """The sessions, their destinations, and the way of every message between them.

    The router never waits. The loop of the receiver calls `receive` for each batch, `flush` after the last one, and
    `tick` every `limits.TICK` seconds.
    """

    def __init__(self, node: str, elsewhere: Elsewhere) -> None:
        self.node = node
        self.elsewhere = elsewhere
        self.stats = Stats()
        self.sessions: dict[int, Session] = {}
        """Sessions by number."""
        self.destinations: dict[bytes, Destination] = {}
        self._due: set[Session] = set()
        self._next = 1

    def greet(self, send: Callable[[list[Frame]], bool], pid: int, program: str, now: float) -> Session:
        """Begin a session. ``send(frames)`` sends one message to it; False: the connection is gone."""
        session = Session(send, self._next, pid, program, self.stats, self._due)
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
            self._evict(session, f"it sent a malformed batch: {error}")
        if session.waiting > limits.SESSION and not session.gone:
            self._evict(session, "it sends faster than it may")

    def _read(self, session: Session, data: bytes, frames: Iterator[Frame], now: float) -> None:
        """Route each message of a batch. The hot path: few calls, and as much as possible once for the batch."""
        find, lanes, unanswered = self.destinations.get, session.account.lanes, session.unanswered
        messages = total = offset = 0
        end = len(data)
        while offset < end:
            kind, length, lane, size, tag = _UNPACK(data, offset)
            if kind != DATA:
                offset = self._control(session, data, offset, now)
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
            destination = find(name)
            if type(destination) is Inbox and destination.forward(content, frame, size):
                if unanswered.messages:
                    unanswered.remove(tag)
            else:
                message = Message(session, session.number, lane, tag, name, content, frame, size)
                self.accept(message, unanswered, now)
                if message.holds:
                    continue
            counts = lanes.get(lane) or lanes.setdefault(lane, [0, 0])
            counts[0] += 1
            counts[1] += size
            if counts[0] >= REPORTED or counts[1] >= REPORTED_BYTES:
                session.account.report_lane(lane)
            messages += 1
            total += size
        if messages:
            session.account.added(messages, total)
            session.schedule_report()
        if next(frames, None) is not None:
            raise Broken("a frame was not announced")

    def _control(self, session: Session, data: bytes, offset: int, now: float) -> int:
        """Act on a control record. Returns the offset of the next record."""
        if data[offset] == TAKEN:  # as frequent as messages where a session has many subscriptions
            length, number, nothing, size, messages = _UNPACK_TAKEN(data, offset)
            if length or nothing:
                raise Broken("a TAKEN record has a name or a payload")
            subscription = session.subscriptions.get(number)
            if subscription is not None and subscription.took(messages, size):
                subscription.destination.serve(subscription, now)
            return offset + HEAD
        record, after = read(data, offset)
        handler = HANDLERS.get(record.kind)
        if handler is None:
            raise Broken(f"a record is of the unknown kind {record.kind}")
        handler(self, session, record, now)
        return after if session.number in self.sessions else len(data)

    def accept(self, message: Message, unanswered: Unanswered, now: float) -> None:
        """Put a message into its destination, or return it. ``unanswered``: the requests it may answer."""
        name = message.name
        if unanswered.messages:
            request = unanswered.remove(message.tag)
            if request is not None and name[:1] == b"O":  # a request passed on: its caller still waits
                message.caller, message.origin = request.caller, request.origin
        destination = self.destinations.get(name)
        if self.stats.held > HELD_BYTES:
            self.give_back(message, "the receiver's queues are full")
        elif destination is not None:
            if not destination.put(message, now):
                self.give_back(message, NOBODY)
        elif name[:1] != b"I" or not self.elsewhere.forward(message, now):
            self.give_back(message, NOBODY)

    def give_back(self, message: Message, reason: str) -> None:
        """Notify the caller that the message reached no consumer. A message to all is dropped instead."""
        if message.redelivered:
            self.lose(message)
        elif message.name[:1] != b"A":
            self.stats.events["undeliverable"] += 1
            message.caller.undeliverable(message, reason)
        message.release()

    def join(self, name: bytes) -> Destination:
        """The destination of that name, created if it does not exist. Add a consumer at once."""
        destination = self.destinations.get(name)
        if destination is None:
            destination = self.destinations[name] = _DESTINATIONS[name[0]](name, self.stats)
        return destination

    def leave(self, destination: Destination, consumer: Consumer, untaken: Iterable[Message], now: float) -> None:
        """Remove a consumer from its destination. Its untaken messages go to other consumers, or back."""
        destination.remove(consumer)
        destination.requeue(list(untaken), now)
        for message in destination.orphans():
            self.give_back(message, "the last one who served it left")
        if not destination.consumers:
            self.destinations.pop(destination.name, None)
        if consumer.local:
            self.elsewhere.changed(destination)

    def flush(self) -> None:
        """After a batch: send the sessions their records."""
        while self._due:
            self._due.pop().flush()

    def tick(self, now: float) -> None:
        """Send heartbeats, detect silent sessions, and drop expired messages."""
        for session in list(self.sessions.values()):
            silent = now - session.heard
            if silent > limits.DEAD_AFTER and session.unwatch is None:
                self.drop(session, f"it has been silent for {silent:.0f} s")
            elif silent > limits.STALLED_AFTER and not session.stalled:
                self._stall(session)
            session.unanswered.forget_load(now)
            session.account.report_all()
            session.send_record(header.PING)
        for destination in list(self.destinations.values()):
            destination.expire(now)
        self.flush()

    def drop(self, session: Session, reason: str) -> None:
        """End a session without a BYE. Taken messages are lost; the others go to other consumers as redelivered."""
        log.warning("%s ended: %s", session, reason)
        session.gone = True
        now, unsent = monotonic(), set(session.unsent)
        for subscription in session.subscriptions.values():
            for message in subscription.untaken:
                message.redelivered = message.redelivered or message not in unsent
            self.pass_on(session, subscription, now)
        self.end(session)

    def end(self, session: Session) -> None:
        """Forget a session. Its unanswered messages are lost."""
        session.subscriptions.clear()
        self.sessions.pop(session.number, None)
        self._due.discard(session)
        if session.unwatch is not None:
            session.unwatch()
        for message in session.unanswered.drain():
            self.lose(message)

    def lose(self, message: Message) -> None:
        """Notify the caller that the message may have run and will not be answered."""
        self.stats.events["lost"] += 1
        if message.tag != NO_TAG:
            message.caller.worker_lost(message)

    def _evict(self, session: Session, reason: str) -> None:
        session.send_record(header.REFUSED, name=reason.encode())
        session.flush()
        self.drop(session, reason)

    def pass_on(self, session: Session, subscription: Subscription, now: float) -> None:
        """Pass the untaken messages of a subscription to other consumers, or back."""
        untaken = list(subscription.untaken)
        for message in untaken:
            if message.tag != NO_TAG:
                session.unanswered.remove(message.tag)
        destination = self.destinations.get(subscription.destination.name)
        if destination is None:  # the subscription was stopped before, and was the last
            for message in untaken:
                self.give_back(message, "the last one who served it left")
        else:
            self.leave(destination, subscription, untaken, now)

    def _stall(self, session: Session) -> None:
        log.warning("%s has stopped responding: nothing more is delivered to it", session)
        session.stalled = True
        for subscription in session.subscriptions.values():
            subscription.stalled = True
            subscription.destination.stall(subscription)

    def _resume(self, session: Session, now: float) -> None:
        log.info("%s responds again", session)
        session.stalled = False
        for subscription in session.subscriptions.values():
            subscription.stalled = False
            subscription.destination.serve(subscription, now)

    def wind_down(self) -> bool:
        """Pause sending in all sessions without unanswered requests. True: nothing waits, runs or is in flight."""
        done = not self.stats.held
        for session in list(self.sessions.values()):
            session.pause_sending(not session.busy)
            # Replies that wait for a stalled session are not counted in `held`.
            done = done and session.quiet and not session.stalled
        self.flush()
        return done

    def say_goodbye(self) -> None:
        """Send BYE to every session. A session confirms when it has read everything."""
        for session in list(self.sessions.values()):
            session.send_record(header.BYE)
        self.flush()
