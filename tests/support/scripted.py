"""A driver whose every step the test decides: ``rpclib.connect("x://h1,h2", driver=scripted())``.

It routes within its sessions of one class, so that clients and servers of it meet, and writes down what it was
asked to do. The hooks on the class (`Scripted.world`) make it fail or
hang; its gates are `Scripted.gate` and `Scripted.gates`.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import BaseModel

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Delivery, Driver, Gate, Observer, Route, Subscription
from rpclib.errors import ConnectionLost, TransportError
from rpclib.testing.waiting import until as until
from rpclib.url import TransportURL
from rpclib.wire import envelope
from rpclib.wire.answer import Failure, Result
from rpclib.wire.control import Alive
from rpclib.wire.request import Request


@dataclass(frozen=True)
class Sent:
    """One call of `Driver.send`."""

    address: Address
    body: bytes
    ttl: float | None
    tag: bytes

    @property
    def message(self) -> Request | Result | Failure | Alive:
        return envelope.decode(self.body)

    @property
    def request(self) -> Request:
        message = self.message
        assert isinstance(message, Request)
        return message


class World:
    """What a test decides, and what it sees. Hooks are None when nothing special shall happen."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        """The host of every attempt."""
        self.sessions: list[Scripted] = []
        self.subscribed: list[Address] = []
        self.sent: list[Sent] = []
        self.on_open: Callable[[str], Awaitable[None]] | None = None
        self.on_subscribe: Callable[[Address], Awaitable[None]] | None = None
        self.on_send: Callable[[Scripted, Sent], None] | None = None
        self.on_close: Callable[[Scripted], Awaitable[None]] | None = None
        self.present: Callable[[Address], Awaitable[int | None]] | None = None
        self.deaf = False
        """Nothing that is sent arrives."""
        self.numbers = itertools.count(1)

    @property
    def session(self) -> Scripted:
        """The newest."""
        return self.sessions[-1]

    @property
    def requests(self) -> list[Request]:
        return [message for sent in self.sent if isinstance(message := sent.message, Request)]


class NoOptions(BaseModel):
    pass


class Line(Route):
    def __init__(self, address: Address, gate: Gate) -> None:
        self.address = address
        self._gate = gate

    @property
    def gate(self) -> Gate:
        return self._gate


class Scripted(Driver):
    spi_version = 0
    capabilities = frozenset()
    options = NoOptions
    inbox_keys = re.compile(r"[a-z0-9-]+")
    max_body = 1 << 20
    world: ClassVar[World]

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.gate = Gate()
        self.gates: defaultdict[Address, Gate] = defaultdict(Gate)
        """Gates of addresses."""
        self.error: TransportError | None = None
        self.subscriptions: list[Tray] = []
        self.closed = False

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        host = ",".join(map(str, url.hosts))
        cls.world.opened.append(host)
        session = cls(observer)
        cls.world.sessions.append(session)
        try:
            if cls.world.on_open is not None:
                await cls.world.on_open(host)
        except BaseException:
            cls.world.sessions.remove(session)
            raise
        return session

    def route(self, address: Address, *, must_arrive: bool = False) -> Line:
        return Line(address, self.gates[address])

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        self._check()
        assert isinstance(route, Line)
        sent = Sent(route.address, body, ttl, tag)
        if self.world.on_send is not None:
            self.world.on_send(self, sent)
        self.world.sent.append(sent)
        if not self.world.deaf:
            self.deliver(sent.address, body)

    def deliver(self, address: Address, body: bytes, redelivered: bool = False, waited: float = 0.0) -> None:
        """Put a message before the subscribers of ``address``: all, or the first."""
        trays = [
            tray for session in self.world.sessions for tray in session.subscriptions if tray.address == address
        ]
        for tray in trays if address.kind is Kind.ALL else trays[:1]:
            tray.put(Delivery(body, redelivered, waited))

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        if self.world.on_subscribe is not None:
            await self.world.on_subscribe(address)
        self._check()
        self.world.subscribed.append(address)
        if address.kind is Kind.INBOX:
            address = Address.inbox(f"inbox-{next(self.world.numbers)}")
        self.subscriptions.append(Tray(self, address, arrived))
        return self.subscriptions[-1]

    async def subscribers(self, address: Address) -> int | None:
        return None if self.world.present is None else await self.world.present(address)

    async def close(self, *, flush: bool = True) -> None:
        self.closed = True
        self._end(ConnectionLost("closed"))
        if self.world.on_close is not None:
            await self.world.on_close(self)

    def lose(self, text: str = "lost", *, told: bool = True) -> None:
        """End the session by itself. Not ``told``: the core finds out when it sends."""
        error = ConnectionLost(text)
        self._end(error)
        if told:
            self.observer.lost(error)

    def _check(self) -> None:
        if self.error is not None:
            raise ConnectionLost(str(self.error))

    def _end(self, error: TransportError) -> None:
        if self.error is None:
            self.error = error
            for tray in self.subscriptions:
                tray.got.clear()
            self.subscriptions.clear()
            for gate in (self.gate, *self.gates.values()):
                gate.end(error)


class Tray(Subscription):
    """A subscription."""

    def __init__(self, session: Scripted, address: Address, arrived: Callable[[], None]) -> None:
        self.address = address
        self.closed = False
        self.got: deque[Delivery] = deque()
        self._session = session
        self._arrived = arrived

    @property
    def waiting(self) -> int:
        return len(self.got)

    def put(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        asyncio.get_running_loop().call_soon(self._arrived)

    def take(self, limit: int) -> list[Delivery]:
        return [self.got.popleft() for _ in range(min(limit, len(self.got)))]

    async def stop(self) -> None:
        if self in self._session.subscriptions:
            self._session.subscriptions.remove(self)

    async def close(self) -> None:
        self.closed = True
        await self.stop()


def scripted(capabilities: Iterable[Capability] = (), **attributes: object) -> type[Scripted]:
    """A driver class with a world of its own."""
    return type("Scripted", (Scripted,), {"world": World(), "capabilities": frozenset(capabilities), **attributes})


def returning(world: World, *, times: int = 10**9, reason: str = "no such queue") -> None:
    """Let the backend return requests, in a later turn."""
    left = [times]

    def on_send(session: Scripted, sent: Sent) -> None:
        if sent.address.kind is not Kind.INBOX and left[0] > 0:
            left[0] -= 1
            asyncio.get_running_loop().call_soon(session.observer.undeliverable, sent.body, reason)

    world.on_send = on_send


async def turns(count: int = 20) -> None:
    """Let everything run that can run without waiting."""
    for _ in range(count):
        await asyncio.sleep(0)
