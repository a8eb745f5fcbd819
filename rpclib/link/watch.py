"""Once a second: check that the live session still does what it should."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rpclib.driver import Driver
from rpclib.errors import ConnectionLost, TransportError
from rpclib.link.connection import Connection

TICK = 1.0
"""Seconds between two rounds of checks."""

Check = Callable[[Driver], Awaitable[None]]
"""Looks at a session. Raises ConnectionLost to give it up; any other TransportError means: ask again next time."""


async def watch(connection: Connection, checks: Sequence[Check]) -> None:
    """Make every check on each live session, one task for a transport. Never returns."""
    while True:
        await asyncio.sleep(TICK)
        for check in checks:
            driver = connection.driver
            if driver is None:
                break
            try:
                async with asyncio.timeout(TICK):  # a session that hangs must not keep the other checks waiting
                    await check(driver)
            except ConnectionLost as error:
                connection.dead(driver, error)
            except (TransportError, TimeoutError):
                continue
