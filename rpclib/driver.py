"""The driver interface (SPI): everything a message backend implements, and nothing more.

A driver moves opaque bytes to an `Address`. It never sees a method or a correlation id. A `Driver` object is
one live session with one backend: it never reconnects and never retries, it reports its loss through
`Events.lost` and is dead. Reconnecting, rotating hosts, subscribing again and deciding what happens to calls
in flight is the core's work and exists once. (The split is go-cloud's: a portable type over a tiny driver.)

A driver may assume:

* every method is called from the one event loop that ran `open`;
* names in an address obey `rpclib.address`; options are parsed and typed; a body is at most `max_body` long;
* nothing is called after `close` except `close`.

A driver must:

* raise only `rpclib.errors.TransportError` and its subclasses (and CancelledError), with no secret in them;
* survive the cancellation of every coroutine, which is the only time-out;
* start no thread it does not join in `close`, and keep no state that outlives its last session;
* log at most one line per state change, to a logger of its own package.

The interface is public and versioned. `SPI_VERSION` 0 may change with any release; a driver states the version
it was written for, and rpclib refuses another.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

from rpclib.address import Address

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rpclib.errors import TransportError
    from rpclib.url import TransportURL

SPI_VERSION = 0


class Capability(enum.Enum):
    """What a driver promises beyond the interface. Each line decides; the conformance suite holds drivers to it."""

    STORES = "stores"
    """A message to a ONE address that was served once waits there while no subscriber listens."""
    REDELIVERS = "redelivers"
    """A message handed to a session that ends before `take` goes to another subscriber, marked ``redelivered``."""
    UNROUTABLE = "unroutable"
    """A message to an address nobody ever served is reported to `Events.undeliverable`."""
    PRESENCE = "presence"
    """`Driver.subscribers` tells how many sessions subscribe to an address, correct within one second."""
    PEER_LOSS = "peer-loss"
    """When the session that took a tagged message ends before it answered, the sender gets `Events.worker_lost`."""
    EXPIRES = "expires"
    """A message older than its ``ttl`` is not delivered."""
    ORDERED = "ordered"
    """Messages from one session to one address with one subscriber arrive in the order sent."""
    CROSS_PROCESS = "cross-process"
    """Sessions of different processes on one machine reach each other."""
    CROSS_HOST = "cross-host"
    """Sessions of different machines reach each other."""


class Route(Protocol):
    """An address prepared for sending by `Driver.route`; opaque to the core, valid for that session only."""


class Delivery:
    """One received message. Plain slots, because one is made per message; a driver may add its own.

    ``body`` is what was sent. ``redelivered``: it may have been handed to another subscriber before.
    ``waited``: seconds it spent where the driver can see it, else 0.0; the core subtracts it from the deadline.
    """

    __slots__ = ("body", "redelivered", "waited")

    def __init__(self, body: bytes, redelivered: bool = False, waited: float = 0.0) -> None:
        self.body = body
        self.redelivered = redelivered
        self.waited = waited


class Events(Protocol):
    """What a driver tells the core. Plain calls on the loop; they return at once and never raise.

    Never made from inside a call to the driver: what `Driver.send` finds out is told in a later turn."""

    def undeliverable(self, body: bytes, reason: str) -> None:
        """A sent message reached nobody. ``body`` is what was passed to `Driver.send`."""

    def worker_lost(self, tag: bytes) -> None:
        """The session that took the message sent with ``tag`` ended without sending anything with that tag."""

    def blocked(self, reason: str | None) -> None:
        """The backend stopped taking messages (reason), or takes them again (None). For operators' eyes:
        back-pressure itself is `Driver.congested`."""

    def lost(self, error: TransportError) -> None:
        """The session ended by itself. Called once, never after `close`. Its subscriptions are over too."""


class Driver(ABC):
    """One live session with a backend."""

    spi_version: ClassVar[int]
    """The `SPI_VERSION` this driver was written for, as a literal."""
    capabilities: ClassVar[frozenset[Capability]]
    options: ClassVar[type[BaseModel]]
    """The URL query options and configuration keys it understands; unknown ones are errors."""
    all_hosts: ClassVar[bool] = False
    """False: the core tries the URL's hosts one at a time and `open` gets a URL with one host.
    True: `open` gets the URL whole."""
    max_body: int
    """The longest body, in bytes, that this session can send."""
    congested: bool = False
    """True while the bounded send buffer is full: the core awaits `drain` before it sends more."""

    @classmethod
    @abstractmethod
    async def open(cls, url: TransportURL, options: BaseModel, events: Events) -> Self:
        """Connect. Returns a session that can send and subscribe.

        Bounds every step of its own handshake to seconds. Raises Unreachable when the host does not answer,
        AccessDenied for credentials or a vhost the backend refuses. ``options`` is an instance of `options`.
        """

    @abstractmethod
    def route(self, address: Address) -> Route:
        """Prepare an address for sending; cheap, no I/O awaited. The core keeps what it uses often.

        INBOX addresses are routed by their key alone, that of a subscription's final address, perhaps of another
        process: 1 to 255 ASCII characters, which came over the wire and may be anything.
        """

    @abstractmethod
    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        """Take one message. Returns when it lies in the session's buffer, which is flushed at the latest once
        a loop turn. ``ttl`` in seconds: after that the message is worthless and may be dropped.

        ``tag`` is 16 opaque bytes on a message that wants an answer and on its final answer, the same on both;
        empty on any other. A driver with PEER_LOSS pairs them; others may ignore it.

        Raises ConnectionLost when the session is dead: the message was not taken. Raises MessageTooLarge.
        Never waits: a full buffer sets `congested` and still takes this message.
        """

    @abstractmethod
    async def drain(self) -> None:
        """Return when `congested` is False again. Raises ConnectionLost when the session ends meanwhile."""

    @abstractmethod
    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        """Receive what is sent to ``address``. In effect on return: a message sent afterwards, by anyone, arrives.

        ``arrived`` is called on the loop when something came that `Subscription.take` would hand over: at least
        once for what lies there together, and never from inside a call to the driver. It takes, and may send; it
        never raises. What came before `subscribe` returned need not be told: the core looks once by itself.

        At most about ``prefetch`` messages are held locally beyond those taken; 0 means no limit.
        An INBOX is asked for without a key; the subscription's `address` has it.
        """

    @abstractmethod
    async def subscribers(self, address: Address) -> int | None:
        """How many subscriptions ``address`` has anywhere. None without PRESENCE, and for an ALL address where the
        backend cannot tell."""

    @abstractmethod
    async def close(self, *, flush: bool = True) -> None:
        """End the session and its subscriptions. With ``flush``, what `send` took is handed to the backend first.
        Idempotent. Does not call `Events.lost`.
        """

    def sever(self) -> None:
        """End the session at once, as if the backend had: nothing is flushed or given back politely, and
        `Events.lost` follows in a later turn. The conformance suite breaks sessions with it."""
        raise NotImplementedError(f"{type(self).__name__} lacks sever(), which the conformance suite needs")


class Queue:
    """One queue of the backend, for operators. ``messages`` wait in it, ``consumers`` take from it."""

    __slots__ = ("consumers", "messages", "name")

    def __init__(self, name: str, messages: int, consumers: int) -> None:
        self.name = name
        self.messages = messages
        self.consumers = consumers


@runtime_checkable
class Admin(Protocol):
    """What a driver whose backend stores messages may offer operators beside the rest; `rpclib queues` uses it.

    Optional: a `Driver` that has these methods is an Admin. Each raises TransportError with what to do when the
    backend does not allow it.
    """

    async def queues(self, exchange: str) -> list[Queue]:
        """The queues of one exchange, by name."""

    async def purge(self, name: str) -> int:
        """Drop what waits in a queue; how many messages that were. Raises NoServer when there is no such queue."""

    async def delete(self, name: str) -> int:
        """Delete a queue with what waits in it; how many messages that were. Raises NoServer likewise."""


class Subscription(ABC):
    """A stream of deliveries from one address.

    The driver says that something arrived, the core takes as much as it has room for. Receiving thus costs neither
    a task nor a turn of the loop, a cancellation can lose nothing, and several subscriptions of a server share one
    bound on concurrent work exactly.
    """

    address: Address

    @property
    @abstractmethod
    def waiting(self) -> int:
        """How many messages have arrived and were not taken. Some may turn out to be past their ``ttl``."""

    @abstractmethod
    def take(self, limit: int) -> list[Delivery]:
        """Hand over up to ``limit`` messages that have arrived, oldest first; an empty list when there are none.

        Handing over is the settlement: the driver acknowledges what it returns (at most once). Nothing is left to
        take once the session ended: what was not taken is the backend's.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Stop the intake. On return nothing more arrives; what had arrived can still be taken. Idempotent."""

    @abstractmethod
    async def close(self) -> None:
        """Stop, and give back what was not taken: to another subscriber with REDELIVERS, else it is dropped.
        Idempotent."""
