"""Receiving: one consumer on one channel of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from rpclib.address import Address, Kind
from rpclib.driver import Delivery, Subscription
from rpclib.errors import ConnectionLost, TransportClosed, TransportError
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import Control, Vanished, failed
from rpclib_amqp.topology import Plan, plan

LOG = logging.getLogger("rpclib_amqp")

CONSUMER_TAG = "r"
"""A channel has one consumer; one byte, because it is in every delivery and the codec wants it so."""
MAX_PREFETCH = 65535
ATTEMPTS = 3
"""Tries to consume while someone deletes what was just declared."""


class AmqpSubscription(Subscription):
    """Delivery tags count the deliveries of a channel, so the tag to acknowledge follows from how many were
    taken: all that was taken is acknowledged at once, at most once a loop turn."""

    def __init__(
        self,
        address: Address,
        prefetch: int,
        connection: Connection,
        control: Control,
        lose: Callable[[TransportError], None],
        forget: Callable[[AmqpSubscription], None],
    ) -> None:
        self.address = address
        self.plan: Plan = plan(address)
        self.queue = ""
        self._prefetch = prefetch
        self._connection = connection
        self._control = control
        self._lose = lose
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._arrived: deque[Delivery] = deque()
        self._last_tag = 0
        self._ack_due = False
        self._waiter: asyncio.Future[None] | None = None
        self._end: TransportError | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._interrupted = True

    async def start(self) -> None:
        """Declare what the address needs and consume. In effect on return. Raises TransportError.

        Cancelled, it goes on behind the scenes and closes when it is done: given up half way, it would leave a
        queue that fills and that nobody reads.
        """
        self._starting = self._loop.create_task(self._establish())
        try:
            await asyncio.shield(self._starting)
        except TransportError:
            await self.close()
            raise
        except asyncio.CancelledError:
            self._closing = self._loop.create_task(self.close())
            raise
        if self.address.kind is Kind.INBOX:
            self.address = replace(self.address, key=self.queue)

    async def ready(self) -> None:
        while not self._arrived:
            if self._end is not None:
                raise self._end
            if self._stopping is not None and self._stopping.done():
                raise TransportClosed(f"the subscription to {self.address} was stopped")
            self._waiter = self._loop.create_future()
            await self._waiter

    def take(self, limit: int) -> list[Delivery]:
        arrived = self._arrived
        if limit >= len(arrived):
            taken = list(arrived)
            arrived.clear()
        else:
            taken = [arrived.popleft() for _ in range(limit)]
        if taken:
            now = time.monotonic()
            for delivery in taken:
                delivery.waited = now - delivery.waited
            if self.plan.acknowledged and not self._ack_due:
                self._ack_due = True
                self._loop.call_soon(self._acknowledge)
        return taken

    async def stop(self) -> None:
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop())
            self._stopping.add_done_callback(lambda _: self._wake())
        await asyncio.shield(self._stopping)

    async def close(self) -> None:
        if self._end is None:
            self.end(TransportClosed(f"the subscription to {self.address} is closed"))
            self._arrived.clear()
        await self._settled()
        if self._channel is not None:
            await self._channel.shut()

    def end(self, error: TransportError) -> None:
        """Nothing arrives from now on. Wakes the waiter: with ``error`` unless there is something to take, which
        is only what the broker would give to nobody else."""
        if self._end is None:
            self._acknowledge()
            self._end = error
            if self.plan.acknowledged:
                self._arrived.clear()
            self._wake()
            self._forget(self)

    @property
    def established(self) -> bool:
        """Whether it consumes, as far as anyone here knows."""
        return self._end is None and self._stopping is None and self._starting is not None and self._starting.done()

    async def bind(self) -> None:
        """Bind again: an operator may have deleted the exchange. Raises TransportError."""
        if self.established:
            await self._control.declare_exchange(self.plan.exchange)
            await self._control.bind(self.plan, self.queue)

    async def _establish(self) -> None:
        tries = ATTEMPTS
        while self._interrupted:
            self._interrupted = False
            try:
                await self._declare_and_consume()
            except Vanished:
                tries -= 1
                if not tries:
                    raise
                self._interrupted = True

    async def _declare_and_consume(self) -> None:
        self.queue = await self._control.declare(self.plan)
        try:
            await self._consume()
        except ChannelClosed as error:
            if not self.plan.queue.durable:
                await self._control.delete(self.queue)  # it goes by itself only with a consumer
            raise failed(f"cannot receive from {self.address}", error) from None

    async def _consume(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            channel = await self._new_channel()
        await channel.ask(
            channel.basic_consume,
            self.queue,
            lambda *_: None,  # deliveries come through on_delivery
            auto_ack=not self.plan.acknowledged,
            consumer_tag=CONSUMER_TAG,
        )

    async def _new_channel(self) -> Channel:
        channel = self._channel = await self._connection.open_channel()
        channel.on_delivery = self._on_delivery
        channel.on_closed = self._on_channel_closed
        channel.add_on_cancel_callback(lambda _: self._recover("its queue was deleted"))
        self._last_tag = 0
        self._ack_due = False
        if self.plan.acknowledged:
            await channel.ask(channel.basic_qos, prefetch_count=min(self._prefetch, MAX_PREFETCH))
        return channel

    async def _settled(self) -> None:
        """Return when no attempt to consume is under way."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
            self._starting.exception()  # retrieved: whoever waited for it may have been cancelled

    async def _stop(self) -> None:
        await self._settled()
        channel = self._channel
        if channel is not None and channel.is_open and CONSUMER_TAG in channel.consumer_tags:
            try:
                await channel.ask(channel.basic_cancel, CONSUMER_TAG)
            except ChannelClosed:
                pass  # then nothing arrives either

    def _on_delivery(self, tag: int, redelivered: bool, body: bytes) -> None:
        if self._end is None:
            self._last_tag = tag
            # Until it is taken, `waited` holds the time of arrival.
            self._arrived.append(Delivery(body, redelivered, time.monotonic()))
            if self._waiter is not None:
                self._wake()

    def _acknowledge(self) -> None:
        if self._ack_due:
            self._ack_due = False
            if self._channel is not None and self._channel.is_open:
                self._channel.basic_ack(self._last_tag - len(self._arrived), multiple=True)

    def _on_channel_closed(self, error: ChannelClosed) -> None:
        if error.code and self._end is None:
            if self.plan.acknowledged:
                self._ack_due = False
                self._arrived.clear()  # the broker delivers it again
            self._recover(f"the broker closed its channel: {error}")

    def _recover(self, reason: str) -> None:
        """Consume again; a failure of that is the session's. Without its inbox, the name of which others
        know, a session cannot go on."""
        if self._end is not None or self._stopping is not None:
            return
        self._interrupted = True
        if self._starting is None or not self._starting.done():
            return  # who starts sees it
        if self.address.kind is Kind.INBOX:
            self._lose(ConnectionLost(f"the inbox was lost: {reason}", maybe_executed=True))
            return
        LOG.warning("consuming again from %s: %s", self.address, reason)
        self._starting = self._loop.create_task(self._start_again())

    async def _start_again(self) -> None:
        try:
            await self._establish()
        except TransportError as error:
            self._lose(error)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
