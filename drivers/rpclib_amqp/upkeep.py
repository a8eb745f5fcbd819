"""Restoring exchanges and bindings that an operator deleted; the broker tells nobody about that."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Collection

from rpclib.errors import ConnectionLost, TransportError
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import Control
from rpclib_amqp.subscription import AmqpSubscription
from rpclib_amqp.topology import DEFAULT_EXCHANGE, Exchange

LOG = logging.getLogger("rpclib_amqp")

LOOK_EVERY = 0.45
"""Seconds. A look is one small frame for each exchange; there is no answer unless the exchange is missing."""
BIND_EVERY = 60
"""Looks. Bound unasked now and then, because an exchange may be deleted and created again between two looks."""


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
    """Return when an exchange is missing: the broker closes a channel that asks for one."""
    for turn in itertools.count(random.randrange(1, BIND_EVERY)):
        for exchange in _exchanges(subscriptions):
            channel.exchange_declare(exchange.name, passive=True)  # without a callback, hence without an answer
        if await channel.closed(LOOK_EVERY * random.uniform(0.7, 0.9)):
            return
        if turn % BIND_EVERY == 0:
            await _bind(subscriptions, _exchanges(subscriptions))


async def _restore(control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Whoever misses an exchange waits so long that every other session has missed it too before the first one
    creates it anew: only thus does each know that its bindings are gone."""
    missing = {each for each in _exchanges(subscriptions) if not await control.has_exchange(each)}
    if missing:
        await asyncio.sleep(LOOK_EVERY)
        await _bind(subscriptions, missing)
        LOG.warning(
            "deleted on the broker, restored: exchange %s", ", ".join(sorted(each.name for each in missing))
        )


async def _bind(subscriptions: Collection[AmqpSubscription], exchanges: Collection[Exchange]) -> None:
    for subscription in list(subscriptions):
        if subscription.plan.exchange in exchanges:
            await subscription.bind()


def _exchanges(subscriptions: Collection[AmqpSubscription]) -> set[Exchange]:
    return {each.plan.exchange for each in subscriptions if each.established} - {DEFAULT_EXCHANGE}
