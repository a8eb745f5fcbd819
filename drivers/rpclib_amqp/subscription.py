"""Receiving: a consumer that is restored when the broker ends it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from rpclib.address import Address, Kind
from rpclib.driver import Subscription
from rpclib.errors import ConnectionLost, TransportError
from rpclib_amqp.channel import ChannelClosed
from rpclib_amqp.codec import Message
from rpclib_amqp.consumers import Consumers
from rpclib_amqp.control import Control, Vanished, failed
from rpclib_amqp.topology import Plan, plan
from rpclib_amqp.trial_consumer import TrialConsumer

LOG = logging.getLogger("rpclib_amqp")

ATTEMPTS = 3
"""Number of attempts to consume. An attempt may fail because an operator deletes what was just declared, or because
another consumer's request closes the channel."""


class Owner(Protocol):
    """The part of a session that a subscription uses. ``lose`` ends the session. ``forget`` is called when the
    subscription ends."""

    control: Control

    def lose(self, error: TransportError) -> None: ...

    def forget(self, subscription: AmqpSubscription) -> None: ...


class AmqpSubscription(Subscription):
    """A subscription that consumes through ``consumers``. ``arrived`` notifies the core."""

    def __init__(
        self, session: Owner, address: Address, prefetch: int, consumers: Consumers, arrived: Callable[[], None]
    ) -> None:
        self._session = session
        self.address = address
        self.plan: Plan = plan(address)
        self.queue = ""
        self.arrived: list[Message] = []
        """Untaken messages, oldest first. In the first `_timed` messages, ``waited`` is the time of arrival."""
        self._timed = 0
        self._trials: list[TrialConsumer] = []
        self._tag = b""
        self._prefetch = prefetch
        self._consumers = consumers
        self._control = session.control
        self._notify_core = arrived
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._interrupted = True

    async def start(self) -> None:
        """Declare the queue of the address and consume from it. Raises TransportError.

        If cancelled, a task completes the start and then closes the subscription. An incomplete start could leave
        a queue that fills without a reader.
        """
        self._starting = self._loop.create_task(self._establish())
        try:
            await asyncio.shield(self._starting)
        except TransportError:
            await self.close()
            raise
        except asyncio.CancelledError:
            self._closing = self._loop.create_task(self._close())
            raise
        if self.address.kind is Kind.INBOX:
            self.address = replace(self.address, key=self.queue)

    @property
    def waiting(self) -> int:
        if self._ended:
            return 0
        return len(self.arrived) + sum(trial.waiting for trial in self._trials)

    def take(self, limit: int) -> list[Any]:  # list[Message], which mypy does not accept as list[Delivery]
        if self._ended or limit <= 0:
            return []
        if self._trials:
            first = self._trials.pop(0).take()
            return [*first, *self.take(limit - len(first))]
        taken = self.arrived
        if limit >= len(taken):
            self.arrived = []
        else:
            taken, self.arrived = taken[:limit], taken[limit:]
        if self._timed:
            now = time.monotonic()
            for message in taken[: self._timed]:
                message.waited = now - message.waited
            self._timed = max(self._timed - len(taken), 0)
        if taken:
            self._consumers.take(self, taken)
        return taken

    async def stop(self) -> None:
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    def end(self) -> None:
        """End the subscription: nothing can be taken any more."""
        self._ended = True
        self._session.forget(self)

    @property
    def established(self) -> bool:
        """Whether the subscription consumes, as far as the session knows."""
        return not self._ended and self._stopping is None and self._starting is not None and self._starting.done()

    async def bind(self) -> None:
        """Declare the exchange and bind the queue again, after an operator deleted the exchange. Raises
        TransportError."""
        if self.established:
            await self._control.declare_exchange(self.plan.exchange)
            await self._control.bind(self.plan, self.queue)

    # Events of the consumer.

    def notify(self) -> None:
        if not self._ended:
            self._notify_core()
        arrived = self.arrived
        if arrived:
            now = time.monotonic()
            for message in arrived[self._timed :]:
                message.waited = now
            self._timed = len(arrived)
            self._consumers.keep_untaken(self)

    def interrupted(self, reason: str, gone: bool) -> None:
        """Consume again. If that fails, the session ends. A lost inbox ends the session at once, because other
        processes know its name."""
        if gone:
            self.arrived.clear()
            self._timed = 0
        if self._ended or self._stopping is not None:
            return
        self._interrupted = True
        if self._starting is None or not self._starting.done():
            return  # `_establish` is running and will try again
        if self.address.kind is Kind.INBOX:
            self._session.lose(ConnectionLost(f"the inbox was lost: {reason}", maybe_executed=True))
            return
        LOG.warning("consuming again from %s: %s", self.address, reason)
        self._starting = self._loop.create_task(self._start_again())

    async def _establish(self) -> None:
        tries = ATTEMPTS
        while self._interrupted:
            self._interrupted = False
            tries -= 1
            try:
                await self._declare_and_consume()
            except TransportError as error:
                if not tries or not (self._interrupted or isinstance(error, Vanished)):
                    raise
                self._interrupted = True

    async def _declare_and_consume(self) -> None:
        self.queue, trial = await self._control.declare(self.plan)
        if trial is not None:
            self._trials.append(trial)
        try:
            self._tag = await self._consumers.consume(self, self.queue, self._prefetch)
        except ChannelClosed as error:
            if not self.plan.queue.durable:
                await self._control.delete(self.queue)  # the broker deletes it only after a consumer was there
            raise failed(f"cannot receive from {self.address}", error) from None

    async def _start_again(self) -> None:
        try:
            await self._establish()
        except TransportError as error:
            self._session.lose(error)
        if self.waiting:
            self._notify_core()

    async def _wait_for_start(self) -> None:
        """Return when no start is running."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
            self._starting.exception()  # mark as retrieved: the caller may have been cancelled

    async def _stop(self) -> None:
        await self._wait_for_start()
        await self._consumers.cancel(self, self._tag)

    async def _close(self) -> None:
        self.end()
        await self.stop()
        self._consumers.give_back(self)
        for trial in self._trials:
            trial.end()
        if not self.plan.acknowledged:
            await self._consumers.shut()
