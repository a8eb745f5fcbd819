"""One subscriber: what the receiver handed over and the program has not taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Delivery, Subscription
from rpclib_zmq import header
from rpclib_zmq.header import age

if TYPE_CHECKING:
    from rpclib_zmq.driver import ZmqDriver

_PREFETCH = 1000
"""What the receiver hands over at most before messages are taken, where the prefetch is higher or there is none."""


class ZmqDelivery(Delivery):
    """A message with its times as they came, in milliseconds; ``waited`` is in seconds once it has been taken."""

    __slots__ = ("stamped", "ttl")

    def __init__(self, body: bytes, redelivered: bool, ttl: int, waited: int, stamped: int) -> None:
        self.body = body
        self.redelivered = redelivered
        self.ttl = ttl
        self.waited = waited
        self.stamped = stamped


class ZmqSubscription(Subscription):
    """Holds at most ``prefetch`` messages; the rest waits in the receiver, where others can get it."""

    def __init__(
        self, session: ZmqDriver, number: int, address: Address, prefetch: int, arrived: Callable[[], None]
    ) -> None:
        self.address = address
        self.arrived = arrived
        self.items: deque[ZmqDelivery] = deque()
        """What has arrived."""
        self._session = session
        self._number = number
        self._prefetch = min(prefetch or _PREFETCH, _PREFETCH)
        self._stopped = False

    @property
    def waiting(self) -> int:
        return len(self.items)

    def take(self, limit: int) -> list[Delivery]:
        items = self.items
        taken: list[Delivery] = []
        if not items:
            return taken
        now, size, before = monotonic(), 0, len(items)
        while items and len(taken) < limit:
            delivery = items.popleft()
            size += len(delivery.body)
            passed = age(delivery.stamped, now)
            if not delivery.ttl or passed < delivery.ttl:
                delivery.waited = (delivery.waited + passed) / 1000
                taken.append(delivery)
        self._session.credits.add(self._number, before - len(items), size, self._prefetch - len(items))
        return taken

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self._session.ask(header.STOP, self._number)

    async def close(self) -> None:
        self._stopped = True
        self.items.clear()
        self._session.release(self._number)
