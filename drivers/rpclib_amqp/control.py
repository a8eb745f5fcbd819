"""Declarations and queries of a session, on separate channels.

The broker answers a refused or failed request by closing the channel. On separate channels, this affects no
consumer and no publisher.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from rpclib.errors import AccessDenied, ConnectionLost, TransportError
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.topology import Exchange, Plan, Queue
from rpclib_amqp.trial_consumer import TrialConsumer

T = TypeVar("T")
LOG = logging.getLogger("rpclib_amqp")

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
MAX_CONCURRENT = 4
"""Number of concurrent requests: while the broker works on one declaration, it can start others."""


class Vanished(TransportError):
    """A queue or exchange that had just been declared is gone: an operator deleted it. A retry may succeed."""


class Control:
    """Makes requests, one at a time on each channel. A request is completed even if its caller is cancelled: its
    answer may be the close of the channel, which must not be mistaken for the answer to the next request. Every
    method raises TransportError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._idle: list[Channel] = []
        self._turns = asyncio.Semaphore(MAX_CONCURRENT)
        self._requests: set[asyncio.Task[Any]] = set()

    async def declare(self, plan: Plan) -> tuple[str, TrialConsumer | None]:
        """Declare the exchange, the queue and the binding of ``plan``. Unless the queue is private, also check with
        a trial consumer that the queue may be consumed from. Returns the queue's name, and the trial consumer if it
        received a message."""
        try:
            name, early, complete = await self._in_turn(self._declare_pipelined, plan)
        except ChannelClosed as error:
            raise failed("cannot declare", error) from None
        if complete:
            return name, early
        if name and not plan.queue.durable:
            await self.delete(name)
        return await self._declare_one_by_one(plan)

    async def declare_exchange(self, exchange: Exchange) -> None:
        async def exists() -> bool:
            return await self.has_exchange(exchange)

        if exchange.name:
            await self._declare(
                f'exchange "{exchange.name}"',
                exists,
                "exchange_declare",
                exchange.name,
                exchange.type,
                durable=True,
            )

    async def declare_queue(self, queue: Queue) -> str:
        """Declare ``queue``. Returns its name, which the broker chooses if ``queue`` has none."""

        async def exists() -> bool:
            return bool(queue.name) and await self.consumers(queue.name) is not None

        declared = await self._declare(
            f'queue "{queue.name}"' if queue.name else "a private queue",
            exists,
            "queue_declare",
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
            arguments=queue.arguments,
        )
        return str(declared.queue) if declared else queue.name

    async def bind(self, plan: Plan, queue: str) -> None:
        if plan.exchange.name:
            try:
                await self._ask("queue_bind", queue, plan.exchange.name, plan.key)
            except ChannelClosed as error:
                raise failed(f'cannot bind queue "{queue}" to exchange "{plan.exchange.name}"', error) from None

    async def delete(self, queue: str) -> None:
        """Delete ``queue`` if it exists. A failure is only logged."""
        try:
            await self._ask("queue_delete", queue)
        except ChannelClosed as error:
            LOG.debug("cannot delete queue %s: %s", queue, error)

    async def has_exchange(self, exchange: Exchange) -> bool:
        """Whether ``exchange`` exists. The query needs no permission."""
        try:
            await self._ask("exchange_declare", exchange.name, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return False
            raise failed(f'cannot look for exchange "{exchange.name}"', error) from None
        return True

    async def consumers(self, queue: str) -> int | None:
        """The number of consumers of ``queue``; None if there is no such queue. For an exclusive queue of another
        connection the broker reveals only that it exists; such a queue has one consumer."""
        try:
            found = await self._ask("queue_declare", queue, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return None
            if error.code == RESOURCE_LOCKED:
                return 1
            raise failed(f'cannot look for queue "{queue}"', error) from None
        return int(found.consumer_count)

    async def _declare_pipelined(self, channel: Channel, plan: Plan) -> tuple[str, TrialConsumer | None, bool]:
        """Make all requests of `declare` in two round trips. Returns the name of the queue, the trial consumer if
        it received a message, and whether all requests succeeded. If not, the name is empty unless the queue was
        declared."""
        exchange, queue, trial = plan.exchange, plan.queue, TrialConsumer(channel)
        declared = channel.request(
            channel.queue_declare,
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
            arguments=queue.arguments,
        )
        requests = [declared]
        if exchange.name:
            requests.append(channel.request(channel.exchange_declare, exchange.name, exchange.type, durable=True))
        if queue.durable:
            requests.append(channel.request(channel.queue_bind, queue.name, exchange.name, plan.key))
            requests += trial.begin(queue.name)
        came = None
        try:
            await asyncio.gather(*requests)
            if queue.durable:
                came = await trial.finish()
            elif exchange.name:
                await channel.ask(channel.queue_bind, declared.result().queue, exchange.name, plan.key)
        except ChannelClosed as error:
            if not error.code:
                raise
            known = declared.done() and declared.exception() is None
            return str(declared.result().queue) if known else "", None, False
        return str(declared.result().queue), came, True

    async def _declare_one_by_one(self, plan: Plan) -> tuple[str, TrialConsumer | None]:
        """Make the requests of `declare` one by one. Errors name the refused request, and existing queues and
        exchanges are used as they are."""
        await self.declare_exchange(plan.exchange)
        name = await self.declare_queue(plan.queue)
        try:
            await self.bind(plan, name)
        except TransportError:
            if not plan.queue.durable:
                await self.delete(name)
            raise
        if not plan.queue.durable:
            return name, None
        try:
            return name, await self._in_turn(self._try_consuming, name)
        except ChannelClosed as error:
            raise failed(f'cannot consume from queue "{name}"', error) from None

    async def _try_consuming(self, channel: Channel, queue: str) -> TrialConsumer | None:
        trial = TrialConsumer(channel)
        await asyncio.gather(*trial.begin(queue))
        return await trial.finish()

    async def _declare(
        self, what: str, exists: Callable[[], Awaitable[bool]], method: str, *args: object, **kwargs: object
    ) -> Any:
        """Declare a queue or exchange, called ``what`` in errors. Returns the broker's answer.

        Returns None if an existing one is used as it is, because the user may not create it, or because it has
        other properties. Nothing is ever deleted.
        """
        try:
            return await self._ask(method, *args, **kwargs)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                raise TransportError(
                    f"cannot declare {what}: {error}; only replicated queues outlive a node, "
                    "see docs/reference/amqp.md"
                ) from None
            if error.code not in (ACCESS_REFUSED, PRECONDITION_FAILED) or not await exists():
                raise failed(f"cannot declare {what}", error) from None
            if error.code == PRECONDITION_FAILED:
                LOG.warning("%s is used though its properties are not rpclib's: %s", what, error)
            return None

    async def _ask(self, method: str, *args: object, **kwargs: object) -> Any:
        """Call one of pika's channel methods and return the broker's answer. Raises ChannelClosed."""

        async def ask(channel: Channel) -> Any:
            return await channel.ask(getattr(channel, method), *args, **kwargs)

        return await self._in_turn(ask)

    async def _in_turn(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Call ``function(channel, *args)`` with a channel that no other request uses, and return its result."""
        task = asyncio.get_running_loop().create_task(self._take_turn(function, *args))
        self._requests.add(task)
        task.add_done_callback(self._on_answered)
        return await asyncio.shield(task)

    async def _take_turn(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        async with self._turns:
            channel = self._idle.pop() if self._idle else await self._connection.open_channel()
            try:
                return await function(channel, *args)
            finally:
                if channel.is_open and not channel.consumers:  # else a trial consumer owns it
                    self._idle.append(channel)

    def _on_answered(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # mark as retrieved: the caller may have been cancelled


def failed(what: str, error: ChannelClosed) -> TransportError:
    """The error to raise for a request that closed its channel."""
    if not error.code:
        return ConnectionLost(f"{what}: {error}")
    if error.code == ACCESS_REFUSED:
        return AccessDenied(f"{what}: {error}")
    if error.code == NOT_FOUND:
        return Vanished(f"{what}: {error}")
    return TransportError(f"{what}: {error}")
