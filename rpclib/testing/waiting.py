"""Waiting in tests: for a condition, for what a session reports, for messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rpclib.address import Address
from rpclib.driver import Delivery, Driver, Subscription
from rpclib.errors import TransportError

SECONDS = 15
"""The longest wait for messages."""
_TURNS = 200
"""Turns of the loop for which `until` asks at every turn; afterwards it asks every 5 ms."""


async def until(condition: Callable[[], object], what: str = "condition", seconds: float = 10.0) -> None:
    """Return when ``condition()`` is true. Raises AssertionError, which names ``what``, after ``seconds``."""
    turns = 0
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                turns += 1
                await asyncio.sleep(0 if turns < _TURNS else 0.005)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {what}") from None


class Recorder:
    """An observer that keeps what a session reports. Wait for it with `until`."""

    def __init__(self) -> None:
        self.told = 0
        """Number of reports of any kind."""
        self.late: list[str] = []
        """Kinds of the reports that came after the loss. None may come then."""
        self.returned: list[bytes] = []
        self.refusals: list[tuple[bytes, TransportError]] = []
        self.lost_tags: list[bytes] = []
        self.losses: list[TransportError] = []

    def undeliverable(self, body: bytes, reason: str) -> None:
        self._heard("undeliverable")
        self.returned.append(body)

    def refused(self, body: bytes, error: TransportError) -> None:
        self._heard("refused")
        self.refusals.append((body, error))

    def worker_lost(self, tag: bytes) -> None:
        self._heard("worker_lost")
        self.lost_tags.append(tag)

    def blocked(self, reason: str | None) -> None:
        self._heard("blocked")

    def lost(self, error: TransportError) -> None:
        self._heard("lost")
        self.losses.append(error)

    def _heard(self, what: str) -> None:
        self.told += 1
        if self.losses:
            self.late.append(what)


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
