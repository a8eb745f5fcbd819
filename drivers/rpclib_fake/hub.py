"""The broker inside the process: queues, who subscribes to them, and what each session still owes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from rpclib.address import Address, Kind
from rpclib.driver import Delivery

if TYPE_CHECKING:
    from rpclib_fake.driver import FakeDriver
    from rpclib_fake.subscription import FakeSubscription

HIGH_WATER = 10_000
LOW_WATER = HIGH_WATER // 2


class Message(Delivery):
    """One message in the hub, from `send` to `take`."""

    __slots__ = ("expires", "sender", "sent", "tag")

    def __init__(self, body: bytes, ttl: float | None, tag: bytes, sender: FakeDriver) -> None:
        self.body = body
        self.redelivered = False
        self.sent = monotonic()
        self.expires = None if ttl is None else self.sent + ttl
        self.tag = tag
        self.sender = sender


class Queue:
    """What waits for the subscribers of one address that have no room, and whose turn is next."""

    __slots__ = ("address", "for_all", "subscriptions", "waiting")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.for_all = address.kind is Kind.ALL
        self.waiting: deque[Message] = deque()
        self.subscriptions: deque[FakeSubscription] = deque()

    def with_room(self) -> FakeSubscription | None:
        """The next subscription in turn that may hold one more message."""
        subscriptions = self.subscriptions
        for _ in range(len(subscriptions)):
            subscription = subscriptions[0]
            subscriptions.rotate(-1)
            if len(subscription.buffer) < subscription.prefetch:
                return subscription
        return None


class Hub:
    """All sessions of one URL. Every method is called under its lock, from whatever thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: set[FakeDriver] = set()
        self.queues: dict[Address, Queue] = {}
        self._stored = 0
        self.full = False

    def queue(self, address: Address) -> Queue:
        """The queue of an address, made when it is first named."""
        return self.queues.setdefault(address, Queue(address))

    def publish(self, queue: Queue, message: Message) -> None:
        subscriptions, loop = queue.subscriptions, message.sender.loop
        if not subscriptions:
            if queue.address.kind is Kind.ONE:
                message.sender.tell_undeliverable(message, "no subscriber")
        elif queue.for_all:
            for subscription in subscriptions:
                copy = Message(message.body, None, b"", message.sender)
                copy.expires = message.expires
                subscription.put(copy, loop)
        elif len(subscriptions) > 1 or queue.waiting:
            self._put(queue, message, loop)
        else:  # the usual case, without detours
            subscription = subscriptions[0]
            if len(subscription.buffer) < subscription.prefetch:
                subscription.put(message, loop)
            else:
                self._put(queue, message, loop)

    def subscribe(self, subscription: FakeSubscription) -> None:
        subscription.queue.subscriptions.append(subscription)
        self.refill(subscription)

    def unsubscribe(self, subscription: FakeSubscription) -> None:
        queue = subscription.queue
        if subscription not in queue.subscriptions:
            return
        queue.subscriptions.remove(subscription)
        if not queue.subscriptions:
            if queue.address.kind is Kind.INBOX:
                self.queues.pop(queue.address, None)
            self._store(-len(queue.waiting))
            for message in queue.waiting:
                message.sender.tell_undeliverable(message, "the last subscriber left")
            queue.waiting.clear()

    def give_back(self, queue: Queue, messages: list[Message], loop: asyncio.AbstractEventLoop) -> None:
        """Hand messages that were not taken to another subscriber."""
        if queue.address.kind is not Kind.ONE:
            return
        for message in messages:
            message.redelivered = True
            if queue.subscriptions:
                self._put(queue, message, loop)
            else:
                message.sender.tell_undeliverable(message, "the last subscriber left")

    def refill(self, subscription: FakeSubscription) -> None:
        """Move what waits to a subscription that has room again."""
        waiting = subscription.queue.waiting
        while waiting and len(subscription.buffer) < subscription.prefetch:
            subscription.buffer.append(waiting.popleft())
            self._store(-1)

    def _put(self, queue: Queue, message: Message, loop: asyncio.AbstractEventLoop) -> None:
        subscription = None if queue.waiting else queue.with_room()
        if subscription is None:
            queue.waiting.append(message)
            self._store(1)
        else:
            subscription.put(message, loop)

    def _store(self, change: int) -> None:
        """Count what waits; above the high-water mark all senders are held until it fell to half."""
        self._stored += change
        if self.full != (self._stored >= (LOW_WATER if self.full else HIGH_WATER)):
            self.full = not self.full
            for session in self.sessions:
                session.tell_congested(self.full)


_hubs: dict[str, Hub] = {}
_hubs_lock = threading.Lock()


def _after_fork() -> None:
    """A child starts without hubs: their sessions are its parent's, and any of the locks may have been held."""
    global _hubs_lock
    _hubs_lock = threading.Lock()
    _hubs.clear()


os.register_at_fork(after_in_child=_after_fork)


def join(name: str, session: FakeDriver) -> Hub:
    """The hub of that name, made if this is its first session."""
    with _hubs_lock:
        hub = _hubs.setdefault(name, Hub())
        with hub.lock:
            hub.sessions.add(session)
            session.congested = hub.full
        return hub


def leave(name: str, session: FakeDriver) -> None:
    """Take a session out; the hub ends with its last."""
    with _hubs_lock:
        hub = _hubs.get(name)
        if hub is None:
            return
        with hub.lock:
            hub.sessions.discard(session)
            if not hub.sessions:
                del _hubs[name]
