"""Once a second: notice sessions that are dead though they look alive, and servers that are gone.

One task per transport, however many calls are in flight.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from rpclib import envelope
from rpclib.address import Address
from rpclib.calls import Call
from rpclib.driver import Capability, Driver
from rpclib.errors import ConnectionLost, NoServer, TransportError

if TYPE_CHECKING:
    from rpclib.transport import Transport

_TICK = 1.0
_SILENT_TICKS = 4
_ABSENT_TICKS = 2


class Liveness:
    """Watches one transport.

    * Loopback: where sessions cross processes, an ALIVE envelope goes to the transport's own inbox each tick.
      When none came back for `_SILENT_TICKS` ticks the session is given up: half-open connections are noticed
      in seconds, over the very way that calls and replies take. Ticks are counted instead of time, so that a
      blocked or suspended loop does not condemn a healthy session.
    * Presence: for calls older than their ``route_grace``, a driver with PRESENCE is asked whether anybody
      serves their address. Nobody twice in a row: NoServer.
    """

    def __init__(self, rpc: Transport) -> None:
        self._rpc = rpc
        self._sent: bytes | None = None
        self._silent = 0
        self._driver: Driver | None = None

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            driver = self._rpc.connection.driver
            if driver is None:
                continue
            try:
                if Capability.CROSS_PROCESS in driver.capabilities:
                    self._loopback(driver)
                if Capability.PRESENCE in driver.capabilities:
                    async with asyncio.timeout(_TICK):  # a dead session must not keep this from noticing
                        await self._presence(driver)
            except ConnectionLost as error:
                self._rpc.connection.dead(driver, error)
            except (TransportError, TimeoutError):
                continue  # the backend could not answer just now; ask again at the next tick

    def _loopback(self, driver: Driver) -> None:
        rpc = self._rpc
        held = rpc.connection.blocked or driver.gate.shut
        if driver is not self._driver or rpc.alive == self._sent or held:
            self._silent = 0
        else:
            self._silent += 1
            if self._silent >= _SILENT_TICKS:
                raise ConnectionLost(f"{rpc.connection.host} does not answer any more")
            return
        if rpc.inbox is None:
            return
        self._driver, self._sent = driver, next(rpc.ids)
        driver.send(driver.route(Address.inbox(rpc.inbox)), envelope.encode_alive(self._sent), None)

    async def _presence(self, driver: Driver) -> None:
        now = monotonic()
        waiting: dict[Address, list[Call]] = {}
        for call in self._rpc.calls.table.values():
            if now - call.sent > call.route_grace:
                waiting.setdefault(call.address, []).append(call)
        for address, calls in waiting.items():
            if await driver.subscribers(address) == 0:
                self._absent(calls)
            else:
                for call in calls:
                    call.absent = 0

    def _absent(self, calls: list[Call]) -> None:
        for call in calls:
            call.absent += 1
            if call.absent >= _ABSENT_TICKS:
                call.fail(
                    NoServer(
                        f"all servers of {call.address} are gone; {call.method} may have run",
                        maybe_executed=True,
                    )
                )
