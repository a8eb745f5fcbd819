"""Operations for operators: list the queues of an exchange, purge a queue, delete a queue.

AMQP 0-9-1 cannot list queues. Their names come from the bindings that RabbitMQ's management plugin lists.
Everything else is AMQP: the message counts are current, and purging and deleting need no plugin.
"""

from __future__ import annotations

import asyncio
from typing import Any

from rpclib.driver import QueueInfo
from rpclib.errors import NoServer
from rpclib_amqp.channel import ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import NOT_FOUND, RESOURCE_LOCKED, failed
from rpclib_amqp.management import Management

MAX_CONCURRENT = 16
"""Number of queues inspected concurrently."""


class AmqpAdmin:
    """`rpclib.driver.Admin` for RabbitMQ."""

    def __init__(self, connection: Connection, management: Management) -> None:
        self._connection = connection
        self._management = management

    async def queues(self, exchange: str) -> list[QueueInfo]:
        """List the queues of servers, which are named and bound as `topology.plan` says. The queues of fanouts and
        replies are left out: each belongs to one process and is deleted with it."""
        if not await self._exists(exchange):
            return []
        bindings = await self._management.get("exchanges", self._management.vhost, exchange, "bindings", "source")
        names = {
            each["destination"]
            for each in bindings
            if each["destination_type"] == "queue" and each["destination"] == f"{exchange}.{each['routing_key']}"
        }
        turn = asyncio.Semaphore(MAX_CONCURRENT)

        async def look(name: str) -> QueueInfo | None:
            async with turn:
                return await self._look(name)

        found = await asyncio.gather(*map(look, sorted(names)))
        return [queue for queue in found if queue is not None]

    async def purge(self, name: str) -> int:
        return await self._clear("purge", name)

    async def delete(self, name: str) -> int:
        if await self._look(name) is None:  # the broker confirms deleting a missing queue
            raise _none("delete", name)
        return await self._clear("delete", name)

    async def _exists(self, exchange: str) -> bool:
        try:
            await self._ask("exchange_declare", exchange, passive=True)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return False
            raise failed(f'cannot look for exchange "{exchange}"', error) from None
        return True

    async def _look(self, name: str) -> QueueInfo | None:
        """Inspect a queue. Returns None if the queue is gone, or exclusive to a connection."""
        try:
            found = await self._ask("queue_declare", name, passive=True)
        except ChannelClosed as error:
            if error.code in (NOT_FOUND, RESOURCE_LOCKED):
                return None
            raise failed(f'cannot look at queue "{name}"', error) from None
        return QueueInfo(name, found.message_count, found.consumer_count)

    async def _clear(self, verb: str, name: str) -> int:
        try:
            return int((await self._ask(f"queue_{verb}", name)).message_count)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                raise _none(verb, name) from None
            raise failed(f'cannot {verb} queue "{name}"', error) from None

    async def _ask(self, method: str, *args: object, **kwargs: object) -> Any:
        """Make a request on a new channel, because a refusal closes the channel. Raises ChannelClosed."""
        channel = await self._connection.open_channel()
        try:
            return await channel.ask(getattr(channel, method), *args, **kwargs)
        finally:
            channel.discard()


def _none(verb: str, name: str) -> NoServer:
    return NoServer(f'cannot {verb} queue "{name}": there is no such queue')
