"""The way out: one message on its way to one address."""

from __future__ import annotations

import asyncio

from rpclib.address import Address
from rpclib.driver import Driver, Route
from rpclib.errors import ConnectionLost, Overloaded
from rpclib.link.link import Link


class Sender:
    """Sends to one address, on whichever session is live. Everything the core sends goes through one.

    ``must_arrive``: as in `Driver.route`.
    """

    __slots__ = ("_driver", "_link", "_must_arrive", "_route", "_unprepared", "address")

    def __init__(self, link: Link, address: Address, *, must_arrive: bool = False) -> None:
        self.address = address
        self._must_arrive = must_arrive
        self._unprepared = False
        """The driver has to prepare the route of the live session before the first message."""
        self._link = link
        self._driver: Driver | None = None
        self._route: Route

    def send(self, body: bytes, ttl: float | None, tag: bytes = b"") -> bool:
        """Hand a message to the driver, as `Driver.send`. False if that has to wait: there is no session, it was
        found dead just now, or it has no room. Raises what else the driver raises."""
        driver = self._link.connection.driver
        if driver is None or driver.gate.shut:
            return False
        route = self._route if driver is self._driver else self._routed(driver)
        if route.gate.shut or self._unprepared:
            return False
        try:
            driver.send(route, body, ttl, tag)
        except ConnectionLost as error:
            self._link.connection.dead(driver, error)
            return False
        return True

    def push(self, body: bytes, ttl: float | None, tag: bytes = b"") -> bool:
        """Like `send`, for the few messages that cannot wait for room: a driver takes those too."""
        driver = self._link.connection.driver
        if driver is None:
            return False
        try:
            driver.send(self._routed(driver), body, ttl, tag)
        except ConnectionLost as error:
            self._link.connection.dead(driver, error)
            return False
        return True

    async def ready(self, seconds: float, what: str) -> float:
        """Return when `send` has a session with room; the seconds that are left of ``seconds``, never 0.

        ``what`` names the message in errors. Raises Unreachable or Overloaded when the time is over,
        TransportClosed and ForkError at once.
        """
        link = self._link
        began = link.now()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    driver = await link.connection.session()
                    if await self._has_room(driver):
                        return max(0.001, seconds - (link.now() - began))
        except TimeoutError:
            if link.connection.driver is None:
                raise link.connection.unreachable(seconds) from None
            reason = link.connection.blocked or "its send buffer stayed full"
            raise Overloaded(
                f"{what} was not sent: {link.connection.host} took no message for {link.now() - began:.1f} s "
                f"({reason})"
            ) from None

    async def _has_room(self, driver: Driver) -> bool:
        """Wait for what keeps a message from this session now; True if nothing does."""
        route = self._routed(driver)
        try:
            if self._unprepared:
                await driver.prepare(route)
                if driver is self._driver:
                    self._unprepared = False
            elif driver.gate.shut:
                await driver.gate.room()
            elif route.gate.shut:
                await route.gate.room()
            else:
                return True
        except ConnectionLost as error:
            self._link.connection.dead(driver, error)
        return False

    def shut(self, driver: Driver) -> bool:
        """Whether a message would have to wait at a gate of this session."""
        return driver.gate.shut or self._routed(driver).gate.shut

    def _routed(self, driver: Driver) -> Route:
        """The route to the address, which each session prepares once."""
        if driver is not self._driver:
            self._route, self._driver = driver.route(self.address, must_arrive=self._must_arrive), driver
            self._unprepared = type(driver).prepare is not Driver.prepare
        return self._route
