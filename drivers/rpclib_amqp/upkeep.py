"""Restoring exchanges and bindings that an operator deleted; the broker tells nobody about that."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Collection

from rpclib.errors import ConnectionLost, TransportError
from rpclib_amqp.control import Control
from rpclib_amqp.subscription import AmqpSubscription
from rpclib_amqp.topology import DEFAULT_EXCHANGE

LOG = logging.getLogger("rpclib_amqp")

LOOK_EVERY = 0.4
"""Seconds. To look for an exchange is cheap; to bind is a write transaction on the broker."""
BIND_EVERY = 60
"""Looks. Bound unasked now and then, because an exchange may be deleted and created again between two looks."""


async def keep_bound(control: Control, subscriptions: Collection[AmqpSubscription]) -> None:
    """Run until cancelled, or the connection of ``control`` ends.

    Whoever misses an exchange waits so long that every other session has missed it too before the first one
    creates it anew: only thus does each know that its bindings are gone.
    """
    for turn in itertools.count(random.randrange(1, BIND_EVERY)):
        await asyncio.sleep(LOOK_EVERY * random.uniform(0.7, 0.9))
        try:
            bound = [each for each in subscriptions if each.established]
            for subscription in bound if turn % BIND_EVERY == 0 else await _unbound(control, bound):
                await subscription.bind()
        except ConnectionLost:
            return
        except TransportError as error:
            LOG.warning("cannot restore what was deleted on the broker: %s", error)


async def _unbound(control: Control, subscriptions: list[AmqpSubscription]) -> list[AmqpSubscription]:
    wanted = {each.plan.exchange for each in subscriptions} - {DEFAULT_EXCHANGE}
    missing = {exchange for exchange in wanted if not await control.has_exchange(exchange)}
    if missing:
        LOG.warning("deleted on the broker, to be restored: exchange %s", ", ".join(each.name for each in missing))
        await asyncio.sleep(LOOK_EVERY)
    return [each for each in subscriptions if each.plan.exchange in missing]
