"""One session with RabbitMQ: a connection to publish with and one to consume with.

They are two because the broker stops reading from a connection that publishes while it is short of memory or
disk; acknowledgements and declarations must go on then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Events, Queue
from rpclib.errors import AccessDenied, ConnectionLost, MessageTooLarge, TransportError
from rpclib.url import Host, TransportURL
from rpclib_amqp.admin import AmqpAdmin
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.consumers import Consumers
from rpclib_amqp.control import ACCESS_REFUSED, Control
from rpclib_amqp.handshake import connect
from rpclib_amqp.management import Management
from rpclib_amqp.options import AmqpOptions
from rpclib_amqp.publisher import AmqpRoute, Publisher
from rpclib_amqp.subscription import AmqpSubscription
from rpclib_amqp.topology import plan
from rpclib_amqp.upkeep import keep_bound

LOG = logging.getLogger("rpclib_amqp")

MAX_BODY = 16 * 1024 * 1024
"""RabbitMQ's own default limit since 4.0."""
CLOSE_WITHIN = 3.0
"""Seconds that a close waits for the broker to have processed what was sent."""


class AmqpDriver(Driver):
    """RabbitMQ 3.8 and later, by AMQP 0-9-1."""

    spi_version: ClassVar[int] = 0
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.STORES,
            Capability.REDELIVERS,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.EXPIRES,
            Capability.ORDERED,
            Capability.CROSS_PROCESS,
            Capability.CROSS_HOST,
        }
    )
    options: ClassVar[type[BaseModel]] = AmqpOptions
    max_body = MAX_BODY

    def __init__(self, host: Host, events: Events) -> None:
        """For `open` only."""
        self._host = host
        self._events = events
        self._end: TransportError | None = ConnectionLost("the session is not open yet")
        self._pressures: set[object] = set()
        self._relieved = asyncio.Event()
        self._relieved.set()
        self._subscriptions: set[AmqpSubscription] = set()
        self._publishing: Connection
        self._consuming: Connection
        self._control: Control
        self._consumers: Consumers
        self._admin: AmqpAdmin
        self._publisher: Publisher
        self._upkeep: asyncio.Task[None]
        self._dying: asyncio.Future[Any] | None = None

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, events: Events) -> Self:
        assert isinstance(options, AmqpOptions)
        url = url if url.hosts else url.with_hosts(Host("localhost"))
        session = cls(url.hosts[0], events)
        session._begin(*await connect(url, options, session))
        session._admin = AmqpAdmin(session._consuming, Management(url, options))
        return session

    def _begin(self, publishing: Connection, consuming: Connection, channel: Channel) -> None:
        self._publishing, self._consuming = publishing, consuming
        self._control = Control(consuming)
        self._consumers = Consumers(consuming, acknowledged=True)
        consuming.on_told = self._on_told
        self._publisher = Publisher(publishing, channel, self._events, self.pressure, self._lose)
        keeping = keep_bound(consuming, self._control, self._subscriptions)
        self._upkeep = asyncio.get_running_loop().create_task(keeping)
        channel.on_closed = self._on_publishing_refused
        self._end = None
        if not (publishing.is_open and consuming.is_open):
            self.connection_ended(ConnectionError("it ended while the session was being opened"))

    def route(self, address: Address) -> AmqpRoute:
        return self._publisher.route(address)

    def send(self, route: Any, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        if self._end is not None:
            self._raise_if_ended()
        if len(body) > MAX_BODY:
            raise MessageTooLarge(f"a message of {len(body)} bytes exceeds the limit of {MAX_BODY} bytes for AMQP")
        self._publisher.send(route, body, ttl)

    async def drain(self) -> None:
        while self.congested and self._end is None:
            await self._relieved.wait()
        self._raise_if_ended()

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> AmqpSubscription:
        self._raise_if_ended()
        inbox = address.kind is Kind.INBOX  # the only kind that does not acknowledge
        consumers = Consumers(self._consuming, acknowledged=False) if inbox else self._consumers
        subscription = AmqpSubscription(
            address, prefetch, consumers, self._control, arrived, self._lose, self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        await subscription.start()
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        """For an ALL address None: the broker does not tell how many queues an exchange has."""
        self._raise_if_ended()
        if address.kind is Kind.ALL:
            return None
        queue = address.key if address.kind is Kind.INBOX else plan(address).queue.name
        return await self._control.consumers(queue) or 0

    async def queues(self, exchange: str) -> list[Queue]:
        return await self._admin.queues(exchange)

    async def purge(self, name: str) -> int:
        return await self._admin.purge(name)

    async def delete(self, name: str) -> int:
        return await self._admin.delete(name)

    async def close(self, *, flush: bool = True) -> None:
        polite = flush and self._end is None
        if self._end is None:
            self._end = ConnectionLost("the session was closed")
            try:
                if flush:
                    await self._publisher.settle(CLOSE_WITHIN / 2)
            finally:
                self._finish()
        if polite:
            done, _ = await asyncio.gather(*(each.finish(CLOSE_WITHIN) for each in self._connections()))
            if not done:
                LOG.warning("closed before %s had taken all that was sent", self._host)
        else:
            await asyncio.gather(*(each.abort() for each in self._connections()))

    def sever(self) -> None:
        self._publishing.drop()

    # What the connections report.

    def pressure(self, source: object, on: bool) -> None:
        if on:
            self._pressures.add(source)
        else:
            self._pressures.discard(source)
        self.congested = bool(self._pressures)
        if self.congested:
            self._relieved.clear()
        else:
            self._relieved.set()

    def blocked(self, reason: str | None) -> None:
        self.pressure("broker", reason is not None)
        self._events.blocked(reason)

    def connection_ended(self, error: Exception) -> None:
        reason = getattr(error, "reply_text", "") or str(error)
        self._lose(ConnectionLost(f"connection to {self._host} lost: {reason}", maybe_executed=True))

    def _on_publishing_refused(self, error: ChannelClosed) -> None:
        # Everything sent since is lost, and nobody knows what that was: the core must treat it as unanswered.
        if error.code == ACCESS_REFUSED:
            self._lose(AccessDenied(f"the broker refused a message: {error}"))
        elif error.code:
            self._lose(ConnectionLost(f"the broker refused a message: {error}", maybe_executed=True))

    def _on_told(self) -> None:
        self._consumers.told()
        self._publishing.turn_next()  # answers, or the next calls of those who got theirs

    def _lose(self, error: TransportError) -> None:
        if self._end is None:
            self._consuming.tell()  # what has arrived is taken now or never
            self._end = error
            self._finish()
            self._dying = asyncio.gather(*(each.abort() for each in self._connections()))
            self._events.lost(error)

    def _finish(self) -> None:
        self._upkeep.cancel()
        self._publisher.end()
        self._consumers.settle()
        for subscription in list(self._subscriptions):
            subscription.end()
        self._relieved.set()

    def _connections(self) -> tuple[Connection, Connection]:
        return self._publishing, self._consuming

    def _raise_if_ended(self) -> None:
        if self._end is not None:
            raise ConnectionLost(str(self._end))
