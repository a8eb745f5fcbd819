"""A subscription that outlives the sessions it is made on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Driver, Subscription
from rpclib.errors import ConnectionLost, TransportClosed

if TYPE_CHECKING:
    from rpclib.connection import Connection


class Intake:
    """A subscription that survives reconnects.

    ``await current()`` gives the live session's subscription, waiting while there is none.
    """

    def __init__(self, connection: Connection, address: Address, prefetch: int) -> None:
        self._connection = connection
        self.address = address
        self.prefetch = prefetch
        self._subscription: Subscription | None = None
        self._changed = asyncio.Event()
        self._closed = False

    async def current(self) -> Subscription:
        """The live subscription. Raises TransportClosed once this intake is closed."""
        while (subscription := self._subscription) is None or self._closed:
            if self._closed:
                raise TransportClosed(f"no longer subscribed to {self.address}")
            self._changed.clear()
            await self._changed.wait()
        return subscription

    async def attach(self, driver: Driver) -> None:
        if self._closed:
            return
        subscription = await driver.subscribe(self.address, prefetch=self.prefetch)
        if self._closed:  # meanwhile
            await subscription.close()
            return
        self._subscription = subscription
        self._changed.set()

    def detach(self, subscription: Subscription | None = None) -> None:
        """Forget the live subscription (only if it is ``subscription``, when given)."""
        if subscription is None or subscription is self._subscription:
            self._subscription = None

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def stop(self) -> Subscription | None:
        """Stop receiving and forget the intake; what had arrived can still be taken from the result."""
        self._connection.forget(self)
        subscription, self._subscription = self._subscription, None
        self.close()
        if subscription is not None:
            try:
                await subscription.stop()
            except ConnectionLost:
                return None
        return subscription

    def key(self) -> str | None:
        """The key of the live inbox; None while there is no session."""
        return None if self._subscription is None else self._subscription.address.key
