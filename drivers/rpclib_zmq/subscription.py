"""One subscriber: what the receiver handed over and the program has not taken."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Delivery, Subscription
from rpclib.errors import TransportClosed, TransportError
from rpclib_zmq import header

if TYPE_CHECKING:
    from rpclib_zmq.driver import ZmqDriver

_CONFIRMED = 200
"""Messages of a subscription without a limit that arrive before the receiver is told; it lets 1000 be under way."""
_CONFIRMED_BYTES = 2 * 1024 * 1024


class ZmqSubscription(Subscription):
    """Holds at most ``prefetch`` messages; the rest waits in the receiver, where others can get it."""

    def __init__(self, session: ZmqDriver, number: int, address: Address, unlimited: bool) -> None:
        self.address = address
        self._session = session
        self._number = number
        self._unlimited = unlimited
        self._items: deque[tuple[bytes, bool, float, float, float]] = deque()
        """Body, whether redelivered, hand-over, expiry (0: never), seconds waited before."""
        self._unconfirmed = 0
        self._unconfirmed_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self._stopped = False

    def arrived(self, body: bytes, redelivered: bool, ttl: int, waited: int, stamped: int) -> None:
        """The receiver handed over a message; times in milliseconds."""
        now = monotonic()
        sent = now - header.age(stamped, now) / 1000
        self._items.append((body, redelivered, sent, sent + ttl / 1000 if ttl else 0.0, waited / 1000))
        if self._unlimited:
            self._unconfirmed += 1
            self._unconfirmed_bytes += len(body)
            if self._unconfirmed >= _CONFIRMED or self._unconfirmed_bytes >= _CONFIRMED_BYTES:
                self._session.took(self._number, self._unconfirmed)
                self._unconfirmed = self._unconfirmed_bytes = 0
        if self._waiter is not None:
            self._wake()

    async def ready(self) -> None:
        while not self._items:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take(self, limit: int) -> list[Delivery]:
        items, now = self._items, monotonic()
        count = min(limit, len(items))
        taken = []
        for _ in range(count):
            body, redelivered, sent, expires, waited = items.popleft()
            if not expires or now < expires:
                taken.append(Delivery(body, redelivered, waited + now - sent))
        if count and not self._unlimited:
            self._session.took(self._number, count)
        return taken

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            try:
                await self._session.ask(header.STOP, self._number)
            finally:
                self.end(TransportClosed(f"no longer subscribed to {self.address}"))

    async def close(self) -> None:
        self._items.clear()
        self._stopped = True
        self.end(TransportClosed(f"no longer subscribed to {self.address}"))
        self._session.release(self._number)

    def end(self, error: TransportError) -> None:
        """Nothing more arrives; wake the waiter."""
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
