"""One subscriber: what the receiver handed over and the program has not taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from rpclib.address import Address
from rpclib.driver import Delivery
from rpclib.driverkit import Ending, ReceiveBuffer
from rpclib.errors import ConnectionLost
from rpclib_zmq import header
from rpclib_zmq.credits import Credits

_PREFETCH = 1000
"""What the receiver hands over at most before messages are taken, where the prefetch is higher or there is none."""


class Session(Protocol):
    """What a subscription needs of its session."""

    ending: Ending
    credits: Credits

    async def ask(self, kind: int, number: int, name: bytes = b"", value: int = 0) -> int: ...

    def release(self, number: int) -> None: ...


class ZmqSubscription(ReceiveBuffer):
    """Holds at most ``prefetch`` messages; the rest waits in the receiver, where others can get it."""

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
            pass  # then nothing comes either
        self.silence()
