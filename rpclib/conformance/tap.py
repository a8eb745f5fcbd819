"""A subscription that a test waits at."""

from __future__ import annotations

import asyncio

from rpclib.address import Address
from rpclib.driver import Delivery, Driver, Subscription

SECONDS = 15
"""What a test waits for messages."""


class Tap:
    """A subscription and the news of its arrivals. Open one with `tap`."""

    def __init__(self) -> None:
        self.subscription: Subscription
        self.arrived = asyncio.Event()

    @property
    def address(self) -> Address:
        return self.subscription.address

    def take(self, limit: int) -> list[Delivery]:
        """What has arrived, up to ``limit``."""
        return self.subscription.take(limit)

    async def some(self, limit: int) -> list[Delivery]:
        """What has arrived, at least one and at most ``limit``, waiting for it."""
        while True:
            self.arrived.clear()
            if taken := self.take(limit):
                return taken
            await self.arrived.wait()

    async def receive(self, count: int = 1) -> list[Delivery]:
        """Take ``count`` deliveries, waiting for them."""
        got: list[Delivery] = []
        try:
            async with asyncio.timeout(SECONDS):
                while len(got) < count:
                    got += await self.some(count - len(got))
        except TimeoutError:
            came = ", ".join(repr(bytes(item.body[:20])) for item in got[-10:]) or "none"
            text = f"{len(got)} of {count} messages to {self.address} came within {SECONDS} s, the last: {came}"
            raise AssertionError(text) from None
        return got

    async def stop(self) -> None:
        await self.subscription.stop()

    async def close(self) -> None:
        await self.subscription.close()


async def tap(driver: Driver, address: Address, *, prefetch: int) -> Tap:
    """Subscribe to ``address``."""
    made = Tap()
    made.subscription = await driver.subscribe(address, prefetch=prefetch, arrived=made.arrived.set)
    return made
