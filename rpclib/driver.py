"""The driver interface (SPI): everything a message backend implements, and nothing more.

A driver moves opaque bytes to an `Address`. It never sees a method or a correlation id. A `Driver` object is
one live session with one backend: it never reconnects and never retries, it reports its loss through
`Observer.lost` and is dead. Reconnecting, rotating hosts, subscribing again and deciding what happens to calls
in flight is the core's work and exists once. (The split is go-cloud's: a portable type over a tiny driver.)

A driver may assume:

* every method is called from the one event loop that ran `open`;
* names in an address obey `rpclib.address`; options are parsed and typed; a body is ``bytes``.

A driver must:

* raise only what the methods name, and CancelledError. No text holds a secret;
* raise no exception object twice: several tasks may ask, and each raise adds to the object's traceback;
* survive the cancellation of every coroutine, which is the only time-out; each says what a cancellation leaves;
* start no task and no thread that it does not join in `close`, and keep no state that outlives its last session;
* let no exception end in a callback of the loop or in a task: an unexpected one ends the session;
* log at most one line per state change, to a logger of its own package.

A session is *dead* once it told `Observer.lost` or `close` was called. Then, whatever ended it, `Driver.send`,
`Driver.subscribe`, `Driver.subscribers`, `Gate.room` and the methods of `Admin` raise ConnectionLost, also for
those who wait in them; `Driver.route` still returns a route, `Subscription.take` nothing; `stop` and `close`
return at once.

`rpclib.driverkit` has what every driver needs and few get right at once: the end of a session, buffers, names.

The interface is public and versioned. `SPI_VERSION` 0 may change with any release; a driver states the version
it was written for, and rpclib refuses another.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

from rpclib.address import Address
from rpclib.gate import Gate as Gate

if TYPE_CHECKING:
    import re

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
    """A message to a ONE address nobody ever served is reported to `Observer.undeliverable`."""
    PRESENCE = "presence"
    """`Driver.subscribers` is 0 exactly when nobody subscribes; otherwise at least 1, at most the number of
    subscriptions; correct within one second."""
    PEER_LOSS = "peer-loss"
    """When the session that took a tagged message ends before it answered, the sender gets
    `Observer.worker_lost`."""
    PEER_GONE = "peer-gone"
    """A message to an INBOX that nobody owns, or owns any more, sent on a route that ``must_arrive``, is reported
    to `Observer.undeliverable`, within a second of when the backend knows."""
    EXPIRES = "expires"
    """A message older than its ``ttl`` is not delivered."""
    AGES = "ages"
    """`Delivery.waited` counts all the time from `send` to `take`, the transit between machines apart."""
    ORDERED = "ordered"
    """Messages from one session to one address with one subscriber arrive in the order sent."""
    EXCHANGES = "exchanges"
    """Equal topics of different exchanges do not meet."""
    ALL_TYPES = "all-types"
    """Bodies carry every type of the serializer. A driver that translates into a foreign format may lack it."""
    CROSS_PROCESS = "cross-process"
    """Sessions of different processes on one machine reach each other."""
    CROSS_HOST = "cross-host"
    """Sessions of different machines reach each other."""


class Route(Protocol):
    """An address prepared for sending by `Driver.route`; opaque to the core, valid for that session only."""

    @property
    def gate(self) -> Gate:
        """The gate of the address. A driver with one buffer for all addresses returns the gate of the session."""


class Delivery:
    """One received message. Plain slots, because one is made per message; a driver may add its own.

    ``body`` is what was sent, as ``bytes``. ``redelivered``: it was handed to another subscriber before, and may
    have run. ``waited``: seconds it spent where the driver can see it, else 0.0; the core subtracts it from the
    deadline.
    """

    __slots__ = ("body", "redelivered", "waited")

    def __init__(self, body: bytes, redelivered: bool = False, waited: float = 0.0) -> None:
        self.body = body
        self.redelivered = redelivered
        self.waited = waited


class Observer(Protocol):
    """What a driver tells the core. Plain calls on the loop; they return at once, never raise and do not wait.

    Never made from inside a call to the driver: what `Driver.send` finds out is told in a later turn. None of them
    is made, and no subscription's ``arrived``, once `Driver.close` was called, or after `lost`."""

    def undeliverable(self, body: bytes, reason: str) -> None:
        """A sent message reached nobody, and will reach nobody. ``body`` is what was passed to `Driver.send`."""

    def refused(self, body: bytes, error: TransportError) -> None:
        """The backend did not take this message: no permission for it, no memory, a quota. It surely was not run.
        The session goes on, and so do the other messages. ``body`` is what was passed to `Driver.send`; ``error``
        is the caller's to raise: a new object for each message, AccessDenied where permission is missing."""

    def worker_lost(self, tag: bytes) -> None:
        """The session that took the message sent with ``tag`` ended without sending anything with that tag."""

    def blocked(self, reason: str | None) -> None:
        """The backend stopped taking messages (reason), or takes them again (None). For operators' eyes:
        back-pressure itself is `Gate.shut`."""

    def lost(self, error: TransportError) -> None:
        """The session ended by itself, and its subscriptions with it. Told once, and the last that is told.

        The core always answers it with ``close(flush=False)``, and awaits that before it opens the next session."""


class Driver(ABC):
    """One live session with a backend."""

    spi_version: ClassVar[int]
    """The `SPI_VERSION` this driver was written for, as a literal."""
    capabilities: frozenset[Capability]
    """What the class can do at most. A session may narrow it: an attribute of the instance, set in `open` and then
    constant, without what this backend lacks. Never widened."""
    options: ClassVar[type[BaseModel]]
    """The URL query options and configuration keys it understands; unknown ones are errors."""
    inbox_keys: ClassVar[re.Pattern[str]]
    """What the key of an inbox of this driver looks like, as a whole. Keys come over the wire: the core drops what
    does not match; one that matches reaches an inbox or nobody, never another address."""
    all_hosts: ClassVar[bool] = False
    """False: the core tries the URL's hosts one at a time and `open` gets a URL with one host.
    True: `open` gets the URL whole."""
    max_body: int
    """The longest body, in bytes, that this session can send."""
    gate: Gate
    """The session's: shut when no message at all should come. A message is sent while this and its route's gate are
    open."""

    @classmethod  # noqa: B027  # optional
    def check(cls, url: TransportURL, options: BaseModel) -> None:
        """Raise ConfigError for a URL, or options together with it, that can never work. Called by
        `rpclib.connect`, synchronously, before anything is opened: it neither waits nor asks the network.
        ``options`` is an instance of `options`. By default everything is right."""

    @classmethod
    @abstractmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        """Connect. Returns a session that can send and subscribe.

        Bounds every step of its own handshake to seconds. Raises Unreachable when the host does not answer or is
        no such backend, AccessDenied for credentials or a vhost the backend refuses, ConfigError for what only a
        change of the configuration mends. Texts give the reason alone: the core names the host. Failed or
        cancelled, it leaves nothing behind, and ``observer`` is told nothing.
        """

    @abstractmethod
    def route(self, address: Address, *, must_arrive: bool = False) -> Route:
        """Prepare an address for sending; cheap, no I/O awaited, raises nothing. The core keeps what it uses often.

        INBOX addresses are routed by their key alone, that of a subscription's final address, perhaps of another
        process. (A backend that keeps exchanges apart puts the exchange into the key.) A key came over the wire:
        1 to 255 characters of ASCII, which may be anything. One that cannot be a key of this driver reaches
        nobody.

        ``must_arrive``, with PEER_GONE: a message to an INBOX that nobody owns is reported undeliverable. Without
        it, that may be reported too and need not. It changes nothing for a ONE address, which reports with
        UNROUTABLE, nor for an ALL address, which never does.
        """

    async def prepare(self, route: Route) -> None:  # noqa: B027  # optional
        """Make what must exist before the first message to an address, where that takes a round trip. The core
        awaits it before the first `send` on a route, if the class overrides it. Returns within seconds. Raises
        ConnectionLost on a dead session, TransportError for what the backend refuses. Cancelled, it may finish or
        not, and is called again. By default there is nothing to make."""

    @abstractmethod
    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        """Take one message. Returns when it lies in the session's buffer, which is flushed at the latest once
        a loop turn. ``ttl`` in seconds: after that the message is worthless and may be dropped.

        ``tag`` is 16 opaque bytes on a message that wants an answer and on its final answer, the same on both;
        empty on any other. A driver with PEER_LOSS pairs them; others may ignore it.

        Raises ConnectionLost when the session is dead, MessageTooLarge beyond `max_body`, SerializationError if
        it translates bodies and cannot translate this one, and nothing else: the message was not taken. Whatever
        else is wrong is told later, to `Observer.undeliverable` or `Observer.refused`. Never waits: at a shut
        gate it still takes the message, because what must go goes.
        """

    @abstractmethod
    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        """Receive what is sent to ``address``. In effect on return: a message sent afterwards, by anyone, arrives.

        ``arrived`` is called on the loop when something came that `Subscription.take` would hand over: at least
        once for what lies there together, and never from inside a call to the driver. It takes, and may send; it
        never raises. What came before `subscribe` returned need not be told: the core looks once by itself.

        At most about ``prefetch`` messages are held locally beyond those taken; 0 means no limit.
        An INBOX is asked for without a key; the subscription's `address` has it, and no later inbox gets it again.

        Returns within seconds. Raises ConnectionLost on a dead session, AccessDenied when the backend forbids it,
        TransportError for what else it refuses. Failed or cancelled, it leaves nothing subscribed: the driver
        undoes what the backend already made, afterwards if that takes time.
        """

    @abstractmethod
    async def subscribers(self, address: Address) -> int | None:
        """How many subscriptions ``address`` has anywhere, as PRESENCE says. None without PRESENCE, and for an ALL
        address where the backend cannot tell. Answers within a second. Raises ConnectionLost on a dead session,
        TransportError when the backend does not answer the question. Cancelled, it leaves nothing."""

    @abstractmethod
    async def close(self, *, flush: bool = True) -> None:
        """End the session and its subscriptions; returns when its tasks, threads and sockets are gone. With
        ``flush``, what `send` took is handed to the backend first; what was taken is acknowledged in any case.

        Takes a few seconds at most, be the backend silent: after a loss no session is opened before it has
        returned, and after 10 s the core goes on without. Idempotent. Raises nothing. From its first moment the
        observer is told nothing. Cancelled, it ends the session all the same, without flushing; it may be called
        again.
        """

    def sever(self) -> None:
        """End the session at once, as if the backend had: nothing is flushed or given back politely, and
        `Observer.lost` follows in a later turn. Does nothing on a dead session. The conformance suite breaks
        sessions with it, and cannot run without."""
        raise NotImplementedError(f"{type(self).__name__} lacks sever(), which the conformance suite needs")


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue of the backend, for operators. ``messages`` wait in it, ``consumers`` take from it."""

    name: str
    messages: int
    consumers: int


@runtime_checkable
class Admin(Protocol):
    """What a driver whose backend stores messages may offer operators beside the rest; `rpclib queues` uses it.

    Optional: a `Driver` that has these methods is an Admin. Each returns within seconds, and raises
    ConnectionLost on a dead session, else TransportError with what to do when the backend does not allow it. A
    cancellation leaves open whether it was done.
    """

    async def queues(self, exchange: str) -> list[QueueInfo]:
        """The queues of one exchange, by name."""

    async def purge(self, name: str) -> int:
        """Drop what waits in a queue; how many messages that were. Raises NoServer when there is no such queue."""

    async def delete(self, name: str) -> int:
        """Delete a queue with what waits in it; how many messages that were. Raises NoServer likewise."""


class Subscription(ABC):
    """A stream of deliveries from one address.

    The driver says that something arrived, the core takes as much as it has room for. Receiving costs neither
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

        Handing over is the settlement: the driver acknowledges what it returns (at most once). The acknowledgement
        leaves within a few milliseconds, and `Driver.close` and `close` hand over what is left of them; those that
        are lost with a session bring the message back, marked ``redelivered``. Expired messages do not use up
        ``limit``. Raises nothing. Nothing is left to take once the session is dead: what was not taken is the
        backend's.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Stop the intake. On return nothing more arrives, and ``arrived`` is not called any more; what had arrived
        can still be taken. Returns within seconds, at once on a dead session. Idempotent. Raises TransportError if
        the backend refuses. Cancelled, it goes on by itself; called again, it waits for that."""

    @abstractmethod
    async def close(self) -> None:
        """Stop, and give back what was not taken: to another subscriber with REDELIVERS, unmarked where the driver
        knows that it was not taken; else it is dropped. Nothing can be taken from its first moment.

        Otherwise as `stop`."""
