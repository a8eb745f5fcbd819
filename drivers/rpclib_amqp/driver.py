"""One session with RabbitMQ: a connection to publish with and one to consume with.

Two connections are needed because a broker short of memory or disk stops reading from connections that publish.
Acknowledgements and declarations must continue in that state.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Gate, Observer, QueueInfo
from rpclib.driverkit import Ending
from rpclib.errors import AccessDenied, ConnectionLost, MessageTooLarge, TransportError
from rpclib.url import Host, TransportURL
from rpclib_amqp.admin import AmqpAdmin
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.consumers import Consumers
from rpclib_amqp.control import ACCESS_REFUSED, Control
from rpclib_amqp.handshake import connect
from rpclib_amqp.management import Management
from rpclib_amqp.options import AmqpOptions, check
from rpclib_amqp.publisher import AmqpRoute, Publisher
from rpclib_amqp.subscription import AmqpSubscription
from rpclib_amqp.topology import INBOX_KEYS, plan
from rpclib_amqp.upkeep import keep_bound
from rpclib_amqp.window import Window

LOG = logging.getLogger("rpclib_amqp")

MAX_BODY = 16 * 1024 * 1024
"""RabbitMQ's default message size limit since 4.0."""
CLOSE_WITHIN = 3.0
"""Seconds that a close waits for the broker to process the messages sent before."""


class AmqpDriver(Driver):
    """A session with RabbitMQ 3.8 or later over AMQP 0-9-1."""

    spi_version: ClassVar[int] = 0
    capabilities: frozenset[Capability] = frozenset(
        {
            Capability.STORES,
            Capability.REDELIVERS,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.PEER_GONE,
            Capability.EXPIRES,
            Capability.ORDERED,
            Capability.EXCHANGES,
            Capability.ALL_TYPES,
            Capability.CROSS_PROCESS,
            Capability.CROSS_HOST,
        }
    )
    options: ClassVar[type[BaseModel]] = AmqpOptions
    inbox_keys: ClassVar[re.Pattern[str]] = INBOX_KEYS
    max_body = MAX_BODY

    def __init__(self, host: Host, observer: Observer) -> None:
        """Called by `open` only."""
        self.gate = Gate()
        self._host = host
        self._observer = observer
        self._ending = Ending(observer, self._on_lost, LOG)
        self._begun = False
        self._pressures: set[object] = set()
        self._subscriptions: set[AmqpSubscription] = set()
        self._publishing: Connection
        self._consuming: Connection
        self.control: Control
        self._consumers: Consumers
        self._admin: AmqpAdmin
        self._publisher: Publisher
        self._dying: asyncio.Future[Any] | None = None

    @classmethod
    def check(cls, url: TransportURL, options: BaseModel) -> None:
        assert isinstance(options, AmqpOptions)
        check(url, options)

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        assert isinstance(options, AmqpOptions)
        url = url if url.hosts else url.with_hosts(Host("localhost"))
        session = cls(url.hosts[0], observer)
        session._begin(*await connect(url, options, session))
        session._admin = AmqpAdmin(session._consuming, Management(url, options))
        return session

    def _begin(self, publishing: Connection, consuming: Connection, channel: Channel) -> None:
        self._publishing, self._consuming = publishing, consuming
        self.control = Control(consuming)
        self._consumers = Consumers(consuming, acknowledged=True)
        self._publisher = Publisher(publishing, channel, self._observer, self._ending, self.gate, self.pressure)
        publishing.limit(Window(channel, self))
        self._ending.start(keep_bound(consuming, self.control, self._subscriptions))
        self._begun = True
        if not (publishing.is_open and consuming.is_open):
            self.connection_ended(ConnectionError("it ended while the session was being opened"))

    def route(self, address: Address, *, must_arrive: bool = False) -> AmqpRoute:
        return self._publisher.route(address, must_arrive)

    def send(self, route: Any, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        if self._ending.error is not None:
            self._ending.check()
        if len(body) > MAX_BODY:
            raise MessageTooLarge(f"a message of {len(body)} bytes exceeds the limit of {MAX_BODY} bytes for AMQP")
        self._publisher.send(route, body, ttl)

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> AmqpSubscription:
        self._ending.check()
        inbox = address.kind is Kind.INBOX  # the only kind that is consumed without acknowledgements
        consumers = Consumers(self._consuming, acknowledged=False) if inbox else self._consumers
        subscription = AmqpSubscription(self, address, prefetch, consumers, arrived)
        self._subscriptions.add(subscription)
        await subscription.start()
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        """The number of subscribers. None for an ALL address: AMQP cannot count the queues bound to an exchange."""
        self._ending.check()
        if address.kind is Kind.ALL:
            return None
        queue = address.key if address.kind is Kind.INBOX else plan(address).queue.name
        return await self.control.consumers(queue) or 0

    async def queues(self, exchange: str) -> list[QueueInfo]:
        return await self._admin.queues(exchange)

    async def purge(self, name: str) -> int:
        return await self._admin.purge(name)

    async def delete(self, name: str) -> int:
        return await self._admin.delete(name)

    async def close(self, *, flush: bool = True) -> None:
        if self._ending.close() and flush:
            await self._close_politely()
        else:
            self._end_gates_and_subscriptions()
            self._publisher.end()
            await asyncio.gather(*(each.abort() for each in self._connections()))
        await self._ending.join()

    async def _close_politely(self) -> None:
        self._end_gates_and_subscriptions()
        try:
            await self._publisher.wait_until_released(CLOSE_WITHIN / 2)
            self._publisher.end()
            done, _ = await asyncio.gather(*(each.finish(CLOSE_WITHIN) for each in self._connections()))
        except BaseException:  # cancelled: close at once
            self._publisher.end()
            for each in self._connections():
                each.drop()
            raise
        if not done:
            LOG.warning("closed before %s had taken all that was sent", self._host)

    def sever(self) -> None:
        if self._ending.error is None:
            self._publishing.drop()

    # Events of the subscriptions.

    def lose(self, error: TransportError) -> None:
        self._ending.lose(error)

    def forget(self, subscription: AmqpSubscription) -> None:
        self._subscriptions.discard(subscription)

    # Events of the connections, and of the channel to publish on.

    def pressure(self, source: object, on: bool) -> None:
        if on:
            self._pressures.add(source)
        else:
            self._pressures.discard(source)
        self.gate.full(bool(self._pressures))

    def blocked(self, reason: str | None) -> None:
        self.pressure("broker", reason is not None)
        self._ending.tell(self._observer.blocked, reason)

    def connection_ended(self, error: Exception) -> None:
        if not self._begun:
            return  # `open` raises it
        reason = getattr(error, "reply_text", "") or str(error)
        self._ending.lose(ConnectionLost(f"connection to {self._host} lost: {reason}", maybe_executed=True))

    def channel_closed(self, channel: Channel, error: ChannelClosed) -> None:
        if not self._begun:
            return  # `open` raises it
        # The broker dropped an unknown number of later messages too: the core must treat them all as unanswered.
        if error.code == ACCESS_REFUSED:
            self._ending.lose(AccessDenied(f"the broker refused a message: {error}"))
        elif error.code:
            self._ending.lose(ConnectionLost(f"the broker refused a message: {error}", maybe_executed=True))

    def receivers_notified(self) -> None:
        self._consumers.notified()
        self._publishing.flush_next_turn()  # woken tasks send answers, or their next calls

    def _on_lost(self, error: TransportError) -> None:
        self._consuming.notify_receivers()  # last chance to take the messages that have arrived
        self._end_gates_and_subscriptions()
        self._publisher.end()
        self._dying = asyncio.gather(*(each.abort() for each in self._connections()))

    def _end_gates_and_subscriptions(self) -> None:
        """End all waiting for a gate, and all subscriptions; acknowledge what they took."""
        assert self._ending.error is not None
        self.gate.end(self._ending.error)
        self._publisher.end_gates(self._ending.error)
        self._consumers.settle()
        for subscription in list(self._subscriptions):
            subscription.end()

    def _connections(self) -> tuple[Connection, Connection]:
        return self._publishing, self._consuming
