"""A subscription that outlives the sessions it is made on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rpclib.address import Address
from rpclib.driver import Delivery, Driver, Subscription
from rpclib.errors import ConnectionLost


class Intake:
    """A subscription that survives reconnects: ``arrived(intake)`` is called when there is something to take.

    Nothing can be taken while there is no session. ``forget(intake)`` is called when it stops: no new session
    needs to attach it.
    """

    def __init__(
        self,
        address: Address,
        prefetch: int,
        arrived: Callable[[Intake], None],
        forget: Callable[[Intake], None],
    ) -> None:
        self.address = address
        self._prefetch = prefetch
        self._arrived = partial(arrived, self)
        self._forget = forget
        self._subscription: Subscription | None = None
        self._stopped = False

    @property
    def key(self) -> str | None:
        """The key of the live inbox; None while there is no session."""
        return None if self._subscription is None else self._subscription.address.key

    @property
    def waiting(self) -> int:
        """How many messages have arrived and were not taken."""
        return 0 if self._subscription is None else self._subscription.waiting

    def take(self, limit: int) -> list[Delivery]:
        """Up to ``limit`` messages that have arrived; see `Subscription.take`."""
        return [] if self._subscription is None else self._subscription.take(limit)

    async def attach(self, driver: Driver) -> None:
        """Subscribe on a new session."""
        if self._stopped:
            return
        subscription = await driver.subscribe(self.address, prefetch=self._prefetch, arrived=self._arrived)
        if self._stopped:  # meanwhile
            await subscription.close()
            return
        self._subscription = subscription
        self._arrived()  # perhaps before this knew its subscription

    def detach(self) -> None:
        """The session is over."""
        self._subscription = None

    async def stop(self) -> None:
        """Receive nothing more, on no session; what had arrived can still be taken."""
        self._stopped = True
        self._forget(self)
        if self._subscription is not None:
            try:
                await self._subscription.stop()
            except ConnectionLost:
                self._subscription = None

    async def close(self) -> None:
        """Give back what was not taken, once stopped."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
