"""The broker inside the process: queues, their subscriptions, and back-pressure."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from rpclib.address import Address, Kind
from rpclib.driver import Gate
from rpclib.driverkit import Held

HIGH_WATER = 10_000
HIGH_WATER_BYTES = 16 * 1024 * 1024
"""Messages and bytes that one address may hold. At either limit, the gates of the address shut; they open at half
of the limits."""
ALL_TOGETHER = 10
"""Factor of the same limits for all addresses together, at which the gates of all sessions shut."""


class Session(Protocol):
    """The part of a session that the hub uses."""

    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    gate: Gate

    def notify_undeliverable(self, message: Message, reason: str) -> None: ...

    def notify_worker_lost(self, tag: bytes) -> None: ...

    def notify_level(self, gate: Gate, level: Level) -> None: ...


class Subscriber(Protocol):
    """The part of a subscription that the hub uses."""

    queue: Queue
    held: deque[Any]
    prefetch: int

    def hand(self, message: Message, sender: Session) -> None: ...


class Message(Held):
    """One message in the hub, from `send` to `take`."""

    __slots__ = ("must_arrive", "sender", "tag")

    def __init__(
        self, body: bytes, ttl: float | None, tag: bytes, sender: Session, must_arrive: bool = False
    ) -> None:
        self.body = body
        self.redelivered = False
        self.sent = sender.now()
        self.expires = None if ttl is None else self.sent + ttl
        self.tag = tag
        self.sender = sender
        self.must_arrive = must_arrive
        """Whether the sender is notified if the message reaches nobody."""


class Level:
    """The number of messages and bytes held by a queue or the hub, and whether they have reached the limits."""

    __slots__ = ("bytes", "full", "messages", "most", "most_bytes")

    def __init__(self, times: int = 1) -> None:
        self.messages = 0
        self.bytes = 0
        self.full = False
        self.most = HIGH_WATER * times
        self.most_bytes = HIGH_WATER_BYTES * times

    def update(self) -> bool:
        """Update `full`. Returns whether it changed."""
        half = 2 if self.full else 1
        full = self.messages >= self.most // half or self.bytes >= self.most_bytes // half
        changed, self.full = full != self.full, full
        return changed


class Queue:
    """The subscriptions of one address, the next one first, and the messages that exceed their capacity."""

    __slots__ = ("address", "for_all", "gates", "level", "subscriptions", "waiting")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.for_all = address.kind is Kind.ALL
        self.waiting: deque[Message] = deque()
        self.subscriptions: deque[Subscriber] = deque()
        self.level = Level()
        """Level of the messages that wait here or are held by the subscriptions."""
        self.gates: WeakKeyDictionary[Gate, Session] = WeakKeyDictionary()
        """Gates of the routes to this queue, with their sessions. The references are weak, so an entry ends with
        its gate."""

    def next_with_capacity(self) -> Subscriber | None:
        """The next subscription in turn that may hold one more message, or None."""
        subscriptions = self.subscriptions
        for _ in range(len(subscriptions)):
            subscription = subscriptions[0]
            subscriptions.rotate(-1)
            if len(subscription.held) < subscription.prefetch:
                return subscription
        return None


class Hub:
    """The queues and sessions of one URL. Every method is called with the lock held, from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: set[Session] = set()
        self.queues: dict[Address, Queue] = {}
        self.level = Level(ALL_TOGETHER)

    def queue(self, address: Address) -> Queue:
        """The queue of ``address``, created on first use. The queue of an inbox is registered only while the inbox
        is subscribed, because inbox keys are not reused."""
        queue = self.queues.get(address)
        if queue is None:
            queue = Queue(address)
            if address.kind is not Kind.INBOX:
                self.queues[address] = queue
        return queue

    def publish(self, queue: Queue, message: Message) -> None:
        subscriptions, size = queue.subscriptions, len(message.body)
        if not subscriptions:
            if message.must_arrive:
                message.sender.notify_undeliverable(message, "no subscriber")
            return
        level, together = queue.level, self.level
        if queue.for_all:
            for subscription in subscriptions:
                copy = Message(message.body, None, b"", message.sender)
                copy.expires = message.expires
                subscription.hand(copy, message.sender)
            copies = len(subscriptions)
            level.messages += copies - 1
            level.bytes += size * (copies - 1)
            together.messages += copies - 1
            together.bytes += size * (copies - 1)
        elif len(subscriptions) > 1 or queue.waiting:
            self._put(queue, message, message.sender)
        else:  # the usual case, inlined for speed
            subscription = subscriptions[0]
            if len(subscription.held) < subscription.prefetch:
                subscription.hand(message, message.sender)
            else:
                self._put(queue, message, message.sender)
        level.messages += 1
        level.bytes += size
        together.messages += 1
        together.bytes += size
        if (
            level.messages >= level.most
            or level.bytes >= level.most_bytes
            or together.messages >= together.most
            or together.bytes >= together.most_bytes
        ):
            self.update_levels(queue)

    def subscribe(self, subscription: Subscriber) -> None:
        queue = subscription.queue
        self.queues[queue.address] = queue
        queue.subscriptions.append(subscription)
        self.refill(subscription)

    def unsubscribe(self, subscription: Subscriber) -> None:
        queue = subscription.queue
        if subscription not in queue.subscriptions:
            return
        queue.subscriptions.remove(subscription)
        if not queue.subscriptions:
            if queue.address.kind is Kind.INBOX:
                self.queues.pop(queue.address, None)
            orphans = list(queue.waiting)
            queue.waiting.clear()
            self.drop(queue, orphans, "the last subscriber left")

    def give_back(self, queue: Queue, untaken: list[Held], session: Session, may_have_run: bool) -> None:
        """Hand the untaken messages of a subscriber of ``session`` to other subscribers, or notify their
        senders."""
        messages = cast("list[Message]", untaken)
        lost = []
        for message in messages:
            if queue.subscriptions and queue.address.kind is Kind.ONE:
                message.redelivered = message.redelivered or may_have_run
                self._put(queue, message, session)
            else:
                lost.append(message)
        self.drop(queue, lost, "the last subscriber left")

    def refill(self, subscription: Subscriber) -> bool:
        """Move waiting messages to a subscription that has capacity. Returns whether any was moved."""
        waiting, before = subscription.queue.waiting, len(subscription.held)
        if subscription in subscription.queue.subscriptions:
            while waiting and len(subscription.held) < subscription.prefetch:
                subscription.held.append(waiting.popleft())
        return len(subscription.held) > before

    def drop(self, queue: Queue, messages: list[Message], reason: str) -> None:
        """Drop messages that no subscriber is left for. The sender of a message that must arrive is notified."""
        for level in (queue.level, self.level):
            level.messages -= len(messages)
            level.bytes -= sum(len(message.body) for message in messages)
        self.update_levels(queue)
        for message in messages:
            if message.must_arrive:
                message.sender.notify_undeliverable(message, reason)

    def _put(self, queue: Queue, message: Message, sender: Session) -> None:
        """Hand a message to the next subscription with capacity, or have it wait."""
        subscription = None if queue.waiting else queue.next_with_capacity()
        if subscription is None:
            queue.waiting.append(message)
        else:
            subscription.hand(message, sender)

    def update_levels(self, queue: Queue) -> None:
        """Update the levels of ``queue`` and of the hub. If one has changed, notify the sessions with gates
        there."""
        if queue.level.update():
            for gate, session in list(queue.gates.items()):
                session.notify_level(gate, queue.level)
        if self.level.update():
            for session in self.sessions:
                session.notify_level(session.gate, self.level)


_hubs: dict[str, Hub] = {}
_hubs_lock = threading.Lock()


def _after_fork() -> None:
    """Start a child process without hubs: their sessions belong to the parent, and their locks may have been
    held."""
    global _hubs_lock
    _hubs_lock = threading.Lock()
    _hubs.clear()


os.register_at_fork(after_in_child=_after_fork)


def join(name: str, session: Session) -> Hub:
    """Add a session to the hub of that name, which is created for its first session."""
    with _hubs_lock:
        hub = _hubs.setdefault(name, Hub())
        with hub.lock:
            hub.sessions.add(session)
            session.gate.shut = hub.level.full
        return hub


def leave(name: str, session: Session) -> None:
    """Remove a session. The hub ends with its last session."""
    with _hubs_lock:
        hub = _hubs.get(name)
        if hub is None:
            return
        with hub.lock:
            hub.sessions.discard(session)
            if not hub.sessions:
                del _hubs[name]
