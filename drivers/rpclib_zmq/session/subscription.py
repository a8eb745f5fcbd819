"""A subscription of a session: messages delivered by the receiver and not yet taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from rpclib.address import Address
from rpclib.driver import Delivery
from rpclib.driverkit import Ending, ReceiveBuffer
from rpclib.errors import ConnectionLost
from rpclib_zmq.protocol import header
from rpclib_zmq.session.credits import Credits

_PREFETCH = 1000
"""Messages held at most, also with a higher prefetch or none."""


class Session(Protocol):
    """What a subscription needs of its session."""

    ending: Ending
    credits: Credits

    async def ask(self, kind: int, number: int, name: bytes = b"", value: int = 0) -> int: ...

    def release(self, number: int) -> None: ...


class ZmqSubscription(ReceiveBuffer):
    """Holds at most ``prefetch`` messages. The others wait in the receiver, where other consumers can get them."""

    def __init__(
        self, session: Session, number: int, address: Address, prefetch: int, arrived: Callable[[], None]
    ) -> None:
        super().__init__(address, min(prefetch or _PREFETCH, _PREFETCH), arrived)
        self._session = session
        self._number = number
        self._stopping: asyncio.Task[None] | None = None

    def left(self, taken: list[Delivery], count: int, size: int) -> None:
        self._session.credits.add(self._number, count, size, self.prefetch - len(self.held))

    async def stop(self) -> None:
        if self._stopping is None:
            self._stopping = self._session.ending.start(self._stop())
        await asyncio.wait([self._stopping])

    async def close(self) -> None:
        self.end()
        self._session.release(self._number)

    async def _stop(self) -> None:
        try:
            await self._session.ask(header.STOP, self._number)
        except ConnectionLost:
            pass  # a lost session delivers nothing either
        self.silence()
