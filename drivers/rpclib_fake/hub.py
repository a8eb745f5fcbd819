"""The broker inside the process: queues, who subscribes to them, and what each session still owes."""

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
"""What one address may hold; above either, its senders are held until it fell to half."""
ALL_TOGETHER = 10
"""Times as much for all addresses, which holds all senders."""


class Session(Protocol):
    """What the hub needs of a session."""

    loop: asyncio.AbstractEventLoop
    now: Callable[[], float]
    gate: Gate

    def tell_undeliverable(self, message: Message, reason: str) -> None: ...

    def tell_worker_lost(self, tag: bytes) -> None: ...

    def tell_level(self, gate: Gate, level: Level) -> None: ...


class Subscriber(Protocol):
    """What the hub needs of a subscription."""

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
        """Whether its sender is told when it reaches nobody."""


class Level:
    """How much is held."""

    __slots__ = ("bytes", "full", "messages", "most", "most_bytes")

    def __init__(self, times: int = 1) -> None:
        self.messages = 0
        self.bytes = 0
        self.full = False
        self.most = HIGH_WATER * times
        self.most_bytes = HIGH_WATER_BYTES * times

    def turned(self) -> bool:
        """Whether `full` has just changed."""
        half = 2 if self.full else 1
        full = self.messages >= self.most // half or self.bytes >= self.most_bytes // half
        turned, self.full = full != self.full, full
        return turned


class Queue:
    """What waits for the subscribers of one address that have no room, and whose turn is next."""

    __slots__ = ("address", "for_all", "gates", "level", "subscriptions", "waiting")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.for_all = address.kind is Kind.ALL
        self.waiting: deque[Message] = deque()
        self.subscriptions: deque[Subscriber] = deque()
        self.level = Level()
        """Of what waits here and of what its subscribers hold."""
        self.gates: WeakKeyDictionary[Gate, Session] = WeakKeyDictionary()
        """Those of the routes here; who waits at one may hold nothing else of its route."""

    def with_room(self) -> Subscriber | None:
        """The next subscription in turn that may hold one more message."""
        subscriptions = self.subscriptions
        for _ in range(len(subscriptions)):
            subscription = subscriptions[0]
            subscriptions.rotate(-1)
            if len(subscription.held) < subscription.prefetch:
                return subscription
        return None


class Hub:
    """All sessions of one URL. Every method is called under its lock, from whatever thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sessions: set[Session] = set()
        self.queues: dict[Address, Queue] = {}
        self.level = Level(ALL_TOGETHER)

    def queue(self, address: Address) -> Queue:
        """The queue of an address, made when it is first named. That of an inbox is there while the inbox is: its
        key is used once."""
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
                message.sender.tell_undeliverable(message, "no subscriber")
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
        else:  # the usual case, without detours
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
            self.weigh(queue)

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
        """Hand what a subscriber of ``session`` did not take to another one, or tell its senders."""
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
        """Move what waits to a subscription that has room again. Whether anything was."""
        waiting, before = subscription.queue.waiting, len(subscription.held)
        if subscription in subscription.queue.subscriptions:
            while waiting and len(subscription.held) < subscription.prefetch:
                subscription.held.append(waiting.popleft())
        return len(subscription.held) > before

    def drop(self, queue: Queue, messages: list[Message], reason: str) -> None:
        """Nobody is left for these; their senders are told where they must arrive."""
        for level in (queue.level, self.level):
            level.messages -= len(messages)
            level.bytes -= sum(len(message.body) for message in messages)
        self.weigh(queue)
        for message in messages:
            if message.must_arrive:
                message.sender.tell_undeliverable(message, reason)

    def _put(self, queue: Queue, message: Message, sender: Session) -> None:
        subscription = None if queue.waiting else queue.with_room()
        if subscription is None:
            queue.waiting.append(message)
        else:
            subscription.hand(message, sender)

    def weigh(self, queue: Queue) -> None:
        """Hold senders while there is too much, at a queue or at all together."""
        if queue.level.turned():
            for gate, session in list(queue.gates.items()):
                session.tell_level(gate, queue.level)
        if self.level.turned():
            for session in self.sessions:
                session.tell_level(session.gate, self.level)


_hubs: dict[str, Hub] = {}
_hubs_lock = threading.Lock()


def _after_fork() -> None:
    """A child starts without hubs: their sessions are its parent's, and any of the locks may have been held."""
    global _hubs_lock
    _hubs_lock = threading.Lock()
    _hubs.clear()


os.register_at_fork(after_in_child=_after_fork)


def join(name: str, session: Session) -> Hub:
    """The hub of that name, made if this is its first session."""
    with _hubs_lock:
        hub = _hubs.setdefault(name, Hub())
        with hub.lock:
            hub.sessions.add(session)
            session.gate.shut = hub.level.full
        return hub


def leave(name: str, session: Session) -> None:
    """Take a session out; the hub ends with its last."""
    with _hubs_lock:
        hub = _hubs.get(name)
        if hub is None:
            return
        with hub.lock:
            hub.sessions.discard(session)
            if not hub.sessions:
                del _hubs[name]
