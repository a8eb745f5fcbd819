"""What sessions ask of the receiver, beside bringing messages."""

from __future__ import annotations

import logging

from rpclib_zmq import header
from rpclib_zmq.header import INBOX, is_name
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.router import Router
from rpclib_zmq.receiver.session import Session, Subscription
from rpclib_zmq.records import Record

log = logging.getLogger("rpclib_zmq")


class Requests:
    """Answers each record that is no message."""

    def __init__(self, router: Router) -> None:
        self._router = router
        router.requests = {
            header.SUBSCRIBE: self._subscribe,
            header.STOP: self._stop,
            header.RELEASE: self._release,
            header.COUNT: self._count,
            header.PING: lambda session, record, now: None,
            header.BYE: self._bye,
            header.LEAVING: lambda session, record, now: session.confirm(record.number),
        }

    def _subscribe(self, session: Session, record: Record, now: float) -> None:
        name, number, router = record.name, record.number, self._router
        problem = None
        if not is_name(name):
            problem = b"not a name that can be served"
        elif name[0] == INBOX and not name.startswith(header.inbox_prefix(router.node, session.number)):
            problem = b"not an inbox of this session"
        elif number in session.subscriptions or len(session.subscriptions) >= limits.SUBSCRIPTIONS:
            problem = b"too many subscriptions"
        if problem:
            session.say(header.REFUSED, number, name=problem)
            return
        place = router.join(name)
        subscription = Subscription(session, number, record.value, place)
        session.subscriptions[number] = subscription
        place.add(subscription)
        place.serve(subscription, now)
        router.changed(place)
        router.announced(place, lambda: session.say(header.SUBSCRIBED, number))

    def _stop(self, session: Session, record: Record, now: float) -> None:
        subscription = session.subscriptions.get(record.number)
        if subscription is not None:
            self._router.leave(subscription.place, subscription, (), now)
        session.say(header.STOPPED, record.number)

    def _release(self, session: Session, record: Record, now: float) -> None:
        subscription = session.subscriptions.pop(record.number, None)
        if subscription is not None:
            self._router.pass_on(session, subscription, now)

    def _count(self, session: Session, record: Record, now: float) -> None:
        place = self._router.places.get(record.name)
        count = sum(taker.count for taker in place.takers) if place else 0
        session.say(header.COUNTED, record.number, count)

    def _bye(self, session: Session, record: Record, now: float) -> None:
        session.say(header.BYE)
        session.flush()
        session.gone = True
        for subscription in session.subscriptions.values():
            self._router.pass_on(session, subscription, now)
        self._router.end(session)
        log.info("%s ended", session)
