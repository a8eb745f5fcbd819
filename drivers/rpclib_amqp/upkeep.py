"""Restoring exchanges and bindings that an operator deleted; the broker tells nobody about that."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import random
from collections.abc import Collection

import pika.frame
import pika.spec

from rpclib.errors import ConnectionLost, TransportError
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import Control
from rpclib_amqp.subscription import AmqpSubscription
from rpclib_amqp.topology import DEFAULT_EXCHANGE

LOG = logging.getLogger("rpclib_amqp")

LOOK_EVERY = 0.45
"""Seconds. A look is one small frame for each exchange; there is no answer unless the exchange is missing."""
BIND_EVERY = 60
"""Looks. Each queue is bound unasked now and then, because an exchange may be deleted and created again between two
looks."""


async def keep_bound(connection: Connection, control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Run until cancelled, or ``connection``, which is also that of ``control``, ends."""
    told = ""
    while True:
        try:
            watch = await connection.open_channel()
            await _watch(watch, subscriptions)
            await _restore(control, subscriptions)
            told = ""
        except (ConnectionLost, ChannelClosed):
            return
        except TransportError as error:
            if str(error) != told:
                LOG.warning("cannot restore what was deleted on the broker: %s", error)
            told = str(error)


async def _watch(channel: Channel, subscriptions: Collection[AmqpSubscription]) -> None:
    """Return when an exchange is missing: the broker closes a channel that asks for one, or binds to one."""
    for turn in itertools.count(random.randrange(BIND_EVERY)):
        ours = [each for each in subscriptions if each.established and each.plan.exchange != DEFAULT_EXCHANGE]
        channel.send(
            b"".join(_look(channel.channel_number, name) for name in {each.plan.exchange.name for each in ours})
        )
        for each in ours[turn % BIND_EVERY :: BIND_EVERY]:
            channel.queue_bind(each.queue, each.plan.exchange.name, each.plan.key)  # no callback, hence no answer
        if await channel.closed(LOOK_EVERY * random.uniform(0.7, 0.9)):
            return


async def _restore(control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Whoever misses an exchange waits so long that every other session has missed it too before the first one
    creates it anew: only thus does each know that its bindings are gone."""
    exchanges = {each.plan.exchange for each in subscriptions if each.established} - {DEFAULT_EXCHANGE}
    there = await asyncio.gather(*map(control.has_exchange, exchanges))
    missing = {exchange for exchange, found in zip(exchanges, there, strict=True) if not found}
    if missing:
        await asyncio.sleep(LOOK_EVERY)
        await asyncio.gather(*(each.bind() for each in list(subscriptions) if each.plan.exchange in missing))
        LOG.warning(
            "deleted on the broker, restored: exchange %s", ", ".join(sorted(each.name for each in missing))
        )


@functools.lru_cache(4096)
def _look(channel: int, exchange: str) -> bytes:
    """Ask whether ``exchange`` is there. If it is, there is no answer."""
    method = pika.spec.Exchange.Declare(exchange=exchange, passive=True, nowait=True)
    return pika.frame.Method(channel, method).marshal()
