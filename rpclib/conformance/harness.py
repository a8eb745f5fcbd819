"""What a test needs of the driver under test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import rpclib
from rpclib.address import Address, Kind
from rpclib.config.settings import resolve
from rpclib.driver import Capability, Driver
from rpclib.testing.inside import inside
from rpclib.testing.waiting import Recorder, until


class Harness:
    """Opens transports and sessions at one URL. Each harness has an exchange that nothing else uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.exchange = f"conf-{uuid.uuid4().hex[:12]}"
        self._resolved = resolve(url, exchange=self.exchange)
        self.driver: type[Driver] = self._resolved.driver
        self.scheme = self._resolved.url.scheme
        self.needed: frozenset[Capability] = frozenset()
        """What the test rests on."""
        self.recorders: list[Recorder] = []
        """Recorders of the sessions that were opened."""

    def connect(self, **settings: Any) -> rpclib.Transport:
        """A transport in this test's exchange; open it with ``async with``."""
        return rpclib.connect(self.url, **{"exchange": self.exchange, "timeout": 10, **settings})

    async def session(self) -> tuple[Driver, Recorder]:
        """A driver session, and what it reports."""
        events, url = Recorder(), self._resolved.url
        if not self.driver.all_hosts and len(url.hosts) > 1:
            url = url.with_hosts(url.hosts[0])
        driver = await self.driver.open(url, self._resolved.options, events)
        self.recorders.append(events)
        assert driver.capabilities <= self.driver.capabilities, "a session widened its capabilities"
        if lacking := self.needed - driver.capabilities:
            await driver.close()
            pytest.skip(f"this session does not offer {', '.join(item.value for item in lacking)}")
        return driver, events

    def sever(self, rpc: rpclib.Transport) -> None:
        """End the live session of ``rpc`` as if the backend had."""
        driver = inside(rpc).connection.driver
        assert driver is not None, "there is no session to sever"
        driver.sever()

    async def lose(self, rpc: rpclib.Transport) -> None:
        """`sever`, and return when ``rpc`` has noticed; it may be open again by then."""
        severed = inside(rpc).connection.driver
        self.sever(rpc)
        await self.until(lambda: inside(rpc).connection.driver is not severed, "the loss")

    def now(self) -> float:
        """The time of the loop, in seconds."""
        return asyncio.get_running_loop().time()

    async def until(self, condition: Callable[[], Any], what: str = "condition", seconds: float = 10.0) -> None:
        """As `rpclib.testing.waiting.until`."""
        await until(condition, what, seconds)

    async def until_held(self, rpc: rpclib.Transport) -> None:
        """Wait until a server of ``rpc`` holds a request it has no worker for."""
        await self.until(lambda: any(server.saturated for server in inside(rpc).servers), "a request held back")

    def one(self, topic: str, server: str = "") -> Address:
        return Address(Kind.ONE, self.exchange, topic, server)

    def all(self, topic: str) -> Address:
        return Address(Kind.ALL, self.exchange, topic)
