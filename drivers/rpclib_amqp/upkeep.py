"""Restores exchanges and bindings that an operator deleted. The broker does not report such deletions."""

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
"""Seconds between two checks. A check is one small frame for each exchange; the broker answers only if the exchange
is missing."""
BIND_EVERY = 60
"""Number of checks after which a queue is bound again in any case: an exchange may be deleted and created again
between two checks."""


async def keep_bound(connection: Connection, control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Restore deleted exchanges and bindings until cancelled, or until ``connection`` ends. ``control`` must use
    the same connection."""
    last_warning = ""
    while True:
        try:
            watch = await connection.open_channel()
            await _watch(watch, subscriptions)
            await _restore(control, subscriptions)
            last_warning = ""
        except (ConnectionLost, ChannelClosed):
            return
        except TransportError as error:
            if str(error) != last_warning:
                LOG.warning("cannot restore what was deleted on the broker: %s", error)
            last_warning = str(error)


async def _watch(channel: Channel, subscriptions: Collection[AmqpSubscription]) -> None:
    """Return when an exchange is missing: the broker closes a channel that declares it passively or binds to it."""
    for turn in itertools.count(random.randrange(BIND_EVERY)):
        ours = [each for each in subscriptions if each.established and each.plan.exchange != DEFAULT_EXCHANGE]
        channel.send(
            b"".join(_look(channel.channel_number, name) for name in {each.plan.exchange.name for each in ours})
        )
        for each in ours[turn % BIND_EVERY :: BIND_EVERY]:
            channel.queue_bind(
                each.queue, each.plan.exchange.name, each.plan.key
            )  # without a callback, pika requests no answer
        if await channel.closed(LOOK_EVERY * random.uniform(0.7, 0.9)):
            return


async def _restore(control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Declare and bind missing exchanges again. First wait one interval, so that every session sees the exchange
    missing and binds its queues again."""
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
    """Pack a passive declaration of ``exchange``. The broker answers only if the exchange is missing."""
    method = pika.spec.Exchange.Declare(exchange=exchange, passive=True, nowait=True)
    return pika.frame.Method(channel, method).marshal()
