"""Handlers of the control records of sessions."""

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
    """Answers each control record."""

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
            session.send_record(header.REFUSED, number, name=problem)
            return
        destination = router.join(name)
        subscription = Subscription(session, number, record.value, destination)
        session.subscriptions[number] = subscription
        destination.add(subscription)
        destination.serve(subscription, now)
        router.changed(destination)
        router.announced(destination, lambda: session.send_record(header.SUBSCRIBED, number))

    def _stop(self, session: Session, record: Record, now: float) -> None:
        subscription = session.subscriptions.get(record.number)
        if subscription is not None:
            self._router.leave(subscription.destination, subscription, (), now)
        session.send_record(header.STOPPED, record.number)

    def _release(self, session: Session, record: Record, now: float) -> None:
        subscription = session.subscriptions.pop(record.number, None)
        if subscription is not None:
            self._router.pass_on(session, subscription, now)

    def _count(self, session: Session, record: Record, now: float) -> None:
        destination = self._router.destinations.get(record.name)
        count = sum(consumer.count for consumer in destination.consumers) if destination else 0
        session.send_record(header.COUNTED, record.number, count)

    def _bye(self, session: Session, record: Record, now: float) -> None:
        session.send_record(header.BYE)
        session.flush()
        session.gone = True
        for subscription in session.subscriptions.values():
            self._router.pass_on(session, subscription, now)
        self._router.end(session)
        log.info("%s ended", session)
