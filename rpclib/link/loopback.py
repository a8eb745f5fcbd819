"""Noticing sessions that are dead though they look alive, such as half-open TCP connections."""

from __future__ import annotations

from rpclib.address import Address
from rpclib.driver import Capability, Driver
from rpclib.errors import ConnectionLost
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from rpclib.wire.control import Alive, encode_alive

SILENT_TICKS = 4
"""Checks without an answer after which a session is given up."""


class Loopback:
    """Sends ALIVE envelopes to the transport's own inbox, over the very way that calls and replies take.

    When none came back for `SILENT_TICKS` checks, the session is lost. Checks are counted instead of time, so
    that a blocked or suspended loop does not condemn a healthy session.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._sender: Sender | None = None
        self._driver: Driver | None = None
        self._sent: bytes | None = None
        self._returned: bytes | None = None
        self._silent = 0
        link.inbox.on(Alive, self._came_back)

    async def check(self, driver: Driver) -> None:
        """See whether the last envelope came back, and send the next one. Raises ConnectionLost."""
        link = self._link
        if Capability.CROSS_PROCESS not in driver.capabilities or link.inbox.key is None:
            return
        if driver is not self._driver:
            self._driver, self._sent = driver, None
            self._sender = Sender(link, Address.inbox(link.inbox.key))
        assert self._sender is not None
        if (
            self._returned == self._sent
            or self._sent is None
            or link.connection.blocked
            or self._sender.shut(driver)
        ):
            self._silent = 0
            self._sent = link.ids.next()
            self._sender.push(encode_alive(self._sent), None)
            return
        self._silent += 1
        if self._silent >= SILENT_TICKS:
            raise ConnectionLost(f"{link.connection.host} does not answer any more")

    def _came_back(self, message: Alive) -> None:
        self._returned = message.id
