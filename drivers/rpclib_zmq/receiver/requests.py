"""Handlers of the control records of sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import INBOX, is_name
from rpclib_zmq.protocol.records import Record
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.destination import Destination
from rpclib_zmq.receiver.elsewhere import Elsewhere
from rpclib_zmq.receiver.message import Consumer, Message
from rpclib_zmq.receiver.session import Session, Subscription

log = logging.getLogger("rpclib_zmq")


class Routing(Protocol):
    """What the handlers need of the router."""

    node: str
    elsewhere: Elsewhere
    destinations: dict[bytes, Destination]

    def join(self, name: bytes) -> Destination: ...

    def leave(
        self, destination: Destination, consumer: Consumer, untaken: Iterable[Message], now: float
    ) -> None: ...

    def pass_on(self, session: Session, subscription: Subscription, now: float) -> None: ...

    def end(self, session: Session) -> None: ...


def _subscribe(router: Routing, session: Session, record: Record, now: float) -> None:
    name, number = record.name, record.number
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
    router.elsewhere.changed(destination)
    router.elsewhere.announce(destination, lambda: session.send_record(header.SUBSCRIBED, number))


def _stop(router: Routing, session: Session, record: Record, now: float) -> None:
    subscription = session.subscriptions.get(record.number)
    if subscription is not None:
        router.leave(subscription.destination, subscription, (), now)
    session.send_record(header.STOPPED, record.number)


def _release(router: Routing, session: Session, record: Record, now: float) -> None:
    subscription = session.subscriptions.pop(record.number, None)
    if subscription is not None:
        router.pass_on(session, subscription, now)


def _count(router: Routing, session: Session, record: Record, now: float) -> None:
    destination = router.destinations.get(record.name)
    count = sum(consumer.count for consumer in destination.consumers) if destination else 0
    session.send_record(header.COUNTED, record.number, count)


def _bye(router: Routing, session: Session, record: Record, now: float) -> None:
    session.send_record(header.BYE)
    session.flush()
    session.gone = True
    for subscription in session.subscriptions.values():
        router.pass_on(session, subscription, now)
    router.end(session)
    log.info("%s ended", session)


def _leaving(router: Routing, session: Session, record: Record, now: float) -> None:
    session.confirm(record.number)


def _ping(router: Routing, session: Session, record: Record, now: float) -> None:
    """A PING needs no answer: any batch shows that the program runs."""


HANDLERS: Final[dict[int, Callable[[Routing, Session, Record, float], None]]] = {
    header.SUBSCRIBE: _subscribe,
    header.STOP: _stop,
    header.RELEASE: _release,
    header.COUNT: _count,
    header.PING: _ping,
    header.BYE: _bye,
    header.LEAVING: _leaving,
}
"""The handler of each kind of control record, except TAKEN, which the router handles itself."""
