"""Declaring and asking: the synchronous side of a session, on channels of its own.

The broker answers a refused or failed request by closing the channel. Here that harms nobody else.
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
from rpclib_amqp.trial import Trial

T = TypeVar("T")
LOG = logging.getLogger("rpclib_amqp")

ACCESS_REFUSED = 403
NOT_FOUND = 404
RESOURCE_LOCKED = 405
PRECONDITION_FAILED = 406
AT_A_TIME = 4
"""Requests, if there are so many: declaring takes the broker some time, of which it can use for others."""


class Vanished(TransportError):
    """What had been declared a moment before is gone: an operator deletes things. Trying again is worth it."""


class Control:
    """One request at a time on a channel, each to its end even if its caller is cancelled: its answer may be the
    channel's end, which must not be taken for the answer to the next one. Every method raises TransportError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._idle: list[Channel] = []
        self._turns = asyncio.Semaphore(AT_A_TIME)
        self._requests: set[asyncio.Task[Any]] = set()

    async def declare(self, plan: Plan) -> tuple[str, Trial | None]:
        """Make the exchange, the queue and the binding of ``plan`` exist, and see whether the queue may be consumed
        from, unless it is private. Returns the queue's name, and the trial if something came with it."""
        try:
            name, early, complete = await self._in_turn(self._at_once, plan)
        except ChannelClosed as error:
            raise failed("cannot declare", error) from None
        if complete:
            return name, early
        if name and not plan.queue.durable:
            await self.delete(name)
        return await self._one_by_one(plan)

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
        """Returns its name, which the broker chose if ``queue`` has none."""

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
        """Delete ``queue`` if it exists, and whatever comes of it."""
        try:
            await self._ask("queue_delete", queue)
        except ChannelClosed as error:
            LOG.debug("cannot delete queue %s: %s", queue, error)

    async def has_exchange(self, exchange: Exchange) -> bool:
        """Whether it exists. Asking needs no permission."""
        try:
            await self._ask("exchange_declare", exchange.name, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return False
            raise failed(f'cannot look for exchange "{exchange.name}"', error) from None
        return True

    async def consumers(self, queue: str) -> int | None:
        """How many consume from ``queue``; None if there is no such queue. Of another connection's exclusive
        queue the broker tells only that it exists, hence has its one consumer."""
        try:
            found = await self._ask("queue_declare", queue, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return None
            if error.code == RESOURCE_LOCKED:
                return 1
            raise failed(f'cannot look for queue "{queue}"', error) from None
        return int(found.consumer_count)

    async def _at_once(self, channel: Channel, plan: Plan) -> tuple[str, Trial | None, bool]:
        """All that `declare` does, in two round trips. The last is False if some of it was refused; then the name
        is that of what was declared all the same, or empty."""
        exchange, queue, trial = plan.exchange, plan.queue, Trial(channel)
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

    async def _one_by_one(self, plan: Plan) -> tuple[str, Trial | None]:
        """The same, telling what is refused and making do without what exists already."""
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
            return name, await self._in_turn(self._try, name)
        except ChannelClosed as error:
            raise failed(f'cannot consume from queue "{name}"', error) from None

    async def _try(self, channel: Channel, queue: str) -> Trial | None:
        trial = Trial(channel)
        await asyncio.gather(*trial.begin(queue))
        return await trial.finish()

    async def _declare(
        self, what: str, exists: Callable[[], Awaitable[bool]], method: str, *args: object, **kwargs: object
    ) -> Any:
        """The broker's answer; None when what exists is used as it is: without the permission to create it, or
        if someone created it with other properties. Nothing is ever deleted."""
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
        """What ``function(channel, *args)`` returns, which has the channel for itself."""
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
                if channel.is_open and not channel.consumers:  # else it is a trial's
                    self._idle.append(channel)

    def _on_answered(self, task: asyncio.Task[Any]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case the caller was cancelled and nobody else will


def failed(what: str, error: ChannelClosed) -> TransportError:
    """The error to raise for a request that ended its channel."""
    if not error.code:
        return ConnectionLost(f"{what}: {error}")
    if error.code == ACCESS_REFUSED:
        return AccessDenied(f"{what}: {error}")
    if error.code == NOT_FOUND:
        return Vanished(f"{what}: {error}")
    return TransportError(f"{what}: {error}")
