"""Noticing that all servers of an address are gone."""

from __future__ import annotations

from rpclib.calling.calls import Call, Calls
from rpclib.driver import Capability, Driver
from rpclib.errors import NoServer
from rpclib.link.link import Link
from rpclib.link.sender import Sender

ABSENT_TICKS = 2
"""Checks in a row that must find nobody before a call is given up."""


class Presence:
    """Asks drivers with PRESENCE whether anybody serves the addresses of calls older than their ``route_grace``."""

    def __init__(self, link: Link, calls: Calls) -> None:
        self._link = link
        self._calls = calls

    async def check(self, driver: Driver) -> None:
        """End the calls whose address nobody serves, with NoServer."""
        if Capability.PRESENCE not in driver.capabilities:
            return
        now = self._link.now()
        waiting: dict[object, tuple[Sender, list[Call]]] = {}
        for call in self._calls.table.values():
            if now - call.sent > call.route_grace:
                waiting.setdefault(call.sender.address, (call.sender, []))[1].append(call)
        for sender, calls in waiting.values():
            present = await driver.subscribers(sender.address) != 0
            for call in calls:
                call.absent = 0 if present else call.absent + 1
                if call.absent >= ABSENT_TICKS:
                    call.fail(
                        NoServer(
                            f"all servers of {sender.address} are gone; {call.method} may have run",
                            maybe_executed=True,
                        )
                    )
