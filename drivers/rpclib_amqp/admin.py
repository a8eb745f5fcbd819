"""What operators ask of the broker: the queues of an exchange, and to empty or delete them.

AMQP 0-9-1 cannot list queues. Their names come from the bindings that RabbitMQ's management plugin tells; all
else is AMQP, so the numbers are those of this moment, and purging and deleting need no plugin.
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

AT_A_TIME = 16
"""Queues looked at concurrently."""


class AmqpAdmin:
    """`rpclib.driver.Admin` for RabbitMQ."""

    def __init__(self, connection: Connection, management: Management) -> None:
        self._connection = connection
        self._management = management

    async def queues(self, exchange: str) -> list[QueueInfo]:
        """Those of servers: named and bound as `topology.plan` does. The queues of fanouts and replies are not
        among them: they belong to one process each and go with it."""
        if not await self._exists(exchange):
            return []
        bindings = await self._management.get("exchanges", self._management.vhost, exchange, "bindings", "source")
        names = {
            each["destination"]
            for each in bindings
            if each["destination_type"] == "queue" and each["destination"] == f"{exchange}.{each['routing_key']}"
        }
        turn = asyncio.Semaphore(AT_A_TIME)

        async def look(name: str) -> QueueInfo | None:
            async with turn:
                return await self._look(name)

        found = await asyncio.gather(*map(look, sorted(names)))
        return [queue for queue in found if queue is not None]

    async def purge(self, name: str) -> int:
        return await self._clear("purge", name)

    async def delete(self, name: str) -> int:
        if await self._look(name) is None:  # deleting what is not there succeeds
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
        """None for a queue that is gone by now, or that is a connection's own."""
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
        """On a channel of its own, since a refusal ends the channel. Raises ChannelClosed."""
        channel = await self._connection.open_channel()
        try:
            return await channel.ask(getattr(channel, method), *args, **kwargs)
        finally:
            channel.discard()


def _none(verb: str, name: str) -> NoServer:
    return NoServer(f'cannot {verb} queue "{name}": there is no such queue')
