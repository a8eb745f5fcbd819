"""A session for an operator's tools: no inbox, no server, only what `rpclib.driver.Admin` offers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rpclib.driver import Admin
from rpclib.errors import CapabilityMissing
from rpclib.link.connection import Connection, ConnectionObserver

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import
    from rpclib.config.settings import Resolved


def resolve(url: str | None, exchange: str | None) -> Resolved:
    """The configuration of a backend that has queues. Raises ConfigError, CapabilityMissing."""
    from rpclib.config import settings as config  # here, because of pydantic: see above

    resolved = config.resolve(url, exchange=exchange)
    if not issubclass(resolved.driver, Admin):
        raise CapabilityMissing(f"the driver of {resolved.url.scheme}:// has no queues to list, purge or delete")
    return resolved


@asynccontextmanager
async def session(resolved: Resolved) -> AsyncIterator[Admin]:
    """One session with the backend. Raises Unreachable, AccessDenied; see `rpclib.Transport.open`."""
    connection = Connection(resolved)
    await connection.open(ConnectionObserver())
    try:
        driver = connection.driver
        assert isinstance(driver, Admin)
        yield driver
    finally:
        await connection.close()
