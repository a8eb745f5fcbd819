"""A session with the in-memory hub."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Callable
from typing import Any, Self
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Gate, Observer, Route, Subscription
from rpclib.driverkit import Ending, clock_of
from rpclib.errors import ConnectionLost, MessageTooLarge, TransportError
from rpclib.url import TransportURL
from rpclib_fake import hub as hubs
from rpclib_fake.hub import Level, Message, Queue
from rpclib_fake.subscription import FakeSubscription

_inboxes = itertools.count(1)


class FakeOptions(BaseModel):
    """The in-memory driver has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FakeRoute:
    """An address prepared for sending."""

    __slots__ = ("gate", "must_arrive", "queue", "wants_answer")

    def __init__(self, queue: Queue, must_arrive: bool) -> None:
        self.queue = queue
        self.gate = Gate()
        self.gate.shut = queue.level.full
        self.wants_answer = queue.address.kind is Kind.ONE
        self.must_arrive = self.wants_answer or (must_arrive and queue.address.kind is Kind.INBOX)


class FakeDriver(Driver):
    """A session. All sessions of one URL in one process reach each other."""

    spi_version = 0
    capabilities = frozenset(
        {
            Capability.REDELIVERS,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.PEER_LOSS,
            Capability.PEER_GONE,
            Capability.EXPIRES,
            Capability.AGES,
            Capability.ORDERED,
            Capability.EXCHANGES,
            Capability.ALL_TYPES,
        }
    )
    options = FakeOptions
    inbox_keys = re.compile("[0-9]+")
    all_hosts = True
    max_body = 1 << 30

    def __init__(self, name: str, observer: Observer) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = clock_of(self.loop)
        self.gate = Gate()
        self.owed: dict[bytes, hubs.Session] = {}
        """Senders of the requests that this session has taken and not answered yet, by tag."""
        self._name = name
        self._observer = observer
        self._ending = Ending(observer, self._end, logging.getLogger("rpclib_fake"))
        self._subscriptions: list[FakeSubscription] = []
        self._gates: WeakSet[Gate] = WeakSet()
        self.hub = hubs.join(name, self)

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        name = ",".join(map(str, url.hosts))
        return cls(f"{name}/{url.path or ''}", observer)

    def route(self, address: Address, *, must_arrive: bool = False) -> FakeRoute:
        with self.hub.lock:
            route = FakeRoute(self.hub.queue(address), must_arrive)
            route.queue.gates[route.gate] = self
        self._gates.add(route.gate)
        return route

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        if self._ending.error is not None:
            self._ending.check()
        if len(body) > self.max_body:
            raise MessageTooLarge(f"{len(body)} bytes; at most {self.max_body} travel")
        assert isinstance(route, FakeRoute)
        with self.hub.lock:
            if tag and not route.wants_answer:
                self.owed.pop(tag, None)
                tag = b""
            self.hub.publish(route.queue, Message(body, ttl, tag, self, route.must_arrive))

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        self._ending.check()
        if address.kind is Kind.INBOX:
            address = Address.inbox(str(next(_inboxes)))
        with self.hub.lock:
            subscription = FakeSubscription(self, address, prefetch, arrived)
            self.hub.subscribe(subscription)
        self._subscriptions.append(subscription)
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        self._ending.check()
        with self.hub.lock:
            queue = self.hub.queues.get(address)
            return 0 if queue is None else len(queue.subscriptions)

    async def close(self, *, flush: bool = True) -> None:
        if self._ending.close():
            self._end(ConnectionLost("the session was closed"), may_have_run=False)

    def sever(self) -> None:
        """End the session as if the backend had; for tests."""
        self._ending.lose(ConnectionLost("severed"))

    def _end(self, error: TransportError, may_have_run: bool = True) -> None:
        hub = self.hub
        with hub.lock:
            self.gate.end(error)
            for gate in self._gates:
                gate.end(error)
            for subscription in self._subscriptions:
                hub.unsubscribe(subscription)
        for subscription in list(self._subscriptions):
            subscription.give_back(may_have_run=may_have_run)
        with hub.lock:
            for tag, sender in self.owed.items():
                sender.notify_worker_lost(tag)
            self.owed.clear()
        hubs.leave(self._name, self)

    def forget(self, subscription: FakeSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    # Events from the hub. Called under its lock, from any thread.

    def notify_undeliverable(self, message: Message, reason: str) -> None:
        self.from_elsewhere(self._observer.undeliverable, message.body, reason)

    def notify_worker_lost(self, tag: bytes) -> None:
        self.from_elsewhere(self._observer.worker_lost, tag)

    def notify_level(self, gate: Gate, level: Level) -> None:
        """Shut ``gate`` at once if ``level`` is full; otherwise open it, on the loop of this session."""
        if self._ending.error is None:
            gate.shut = level.full
            if not level.full:
                self.from_elsewhere(self._follow, gate, level)

    def _follow(self, gate: Gate, level: Level) -> None:
        """Set ``gate`` as ``level`` is now."""
        with self.hub.lock:
            gate.full(level.full)

    def from_elsewhere(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on the loop of this session, in a later turn, unless the session has ended.
        Thread-safe."""
        if self._ending.error is None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before the session
                self.loop.call_soon_threadsafe(self._ending.tell, function, *args)
