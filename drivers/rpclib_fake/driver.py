"""A session with the in-memory hub."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Events, Route, Subscription
from rpclib.errors import ConnectionLost, MessageTooLarge, TransportError
from rpclib.url import TransportURL
from rpclib_fake import hub as hubs
from rpclib_fake.hub import Message, Queue
from rpclib_fake.subscription import FakeSubscription

_inboxes = itertools.count(1)


class FakeOptions(BaseModel):
    """The in-memory driver has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FakeRoute:
    __slots__ = ("queue", "wants_answer")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.wants_answer = queue.address.kind is Kind.ONE


class FakeDriver(Driver):
    """One session. All sessions of one URL in one process reach each other."""

    spi_version = 0
    capabilities = frozenset(
        {
            Capability.REDELIVERS,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.PEER_LOSS,
            Capability.EXPIRES,
            Capability.ORDERED,
        }
    )
    options = FakeOptions
    all_hosts = True
    max_body = 1 << 30

    def __init__(self, name: str, events: Events) -> None:
        self.loop = asyncio.get_running_loop()
        self.owed: dict[bytes, FakeDriver] = {}
        """Tags of messages taken by this session and not answered yet, with their senders."""
        self._name = name
        self._events = events
        self._subscriptions: list[FakeSubscription] = []
        self._error: TransportError | None = None
        self._drained = asyncio.Event()
        self.hub = hubs.join(name, self)

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, events: Events) -> Self:
        name = ",".join(map(str, url.hosts))
        return cls(f"{name}/{url.path or ''}", events)

    def route(self, address: Address) -> FakeRoute:
        with self.hub.lock:
            return FakeRoute(self.hub.queue(address))

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        if self._error is not None:
            raise self._error
        if len(body) > self.max_body:
            raise MessageTooLarge(f"{len(body)} bytes; at most {self.max_body} travel")
        assert isinstance(route, FakeRoute)
        with self.hub.lock:
            if tag and not route.wants_answer:
                self.owed.pop(tag, None)
                tag = b""
            self.hub.publish(route.queue, Message(body, ttl, tag, self))

    async def drain(self) -> None:
        while self._error is None:
            if not self.congested:
                return
            self._drained.clear()
            await self._drained.wait()
        raise self._error

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        if self._error is not None:
            raise self._error
        if address.kind is Kind.INBOX:
            address = Address(Kind.INBOX, "", key=str(next(_inboxes)))
        with self.hub.lock:
            subscription = FakeSubscription(self, address, prefetch, arrived)
            self.hub.subscribe(subscription)
        self._subscriptions.append(subscription)
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        with self.hub.lock:
            return len(self.hub.queue(address).subscriptions)

    async def close(self, *, flush: bool = True) -> None:
        if self._error is None:
            self._end(ConnectionLost("the session was closed"))

    def sever(self) -> None:
        """End the session as if the backend had; for tests."""
        if self._error is None:
            error = ConnectionLost("severed")
            self._end(error)
            self.loop.call_soon(self._events.lost, error)

    def _end(self, error: TransportError) -> None:
        self._error = error
        hub = self.hub
        with hub.lock:
            for subscription in self._subscriptions:
                hub.unsubscribe(subscription)
        for subscription in self._subscriptions:
            subscription.give_back()
        self._drained.set()
        with hub.lock:
            for tag, sender in self.owed.items():
                sender.from_elsewhere(sender._events.worker_lost, tag)
            self.owed.clear()
        hubs.leave(self._name, self)

    # What the hub tells this session; called under its lock, from whatever thread.

    def tell_undeliverable(self, message: Message, reason: str) -> None:
        self.from_elsewhere(self._events.undeliverable, message.body, reason)

    def tell_congested(self, congested: bool) -> None:
        self.congested = congested
        if not congested:
            self.from_elsewhere(self._drained.set)

    def from_elsewhere(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` on this session's loop, from any thread, in a later turn."""
        if self._error is None:
            with contextlib.suppress(RuntimeError):  # its loop was closed, and the session was not
                self.loop.call_soon_threadsafe(function, *args)
