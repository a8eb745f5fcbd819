"""Telling the receiver how much was taken, so that it hands over more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rpclib_zmq.header import NO_TAG, TAKEN
from rpclib_zmq.records import PACK

_PATIENCE = 0.005
"""Seconds for which it may wait for records to go along with: one by one, calls cost no message for it."""


class Credits:
    """What subscriptions took and the receiver was not told, by their numbers."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._untold: dict[int, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, messages: int, size: int) -> int:
        """More was taken. Returns how many messages the receiver does not know of by now."""
        before, bytes_before = self._untold.get(number, (0, 0))
        self._untold[number] = before + messages, bytes_before + size
        if self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._out_of_patience)
        return before + messages

    def records(self) -> list[bytes]:
        """What there is to tell, which counts as told."""
        if not self._untold:
            return []
        told = [PACK(TAKEN, 0, number, 0, size, 0, count, NO_TAG) for number, (count, size) in self._untold.items()]
        self._untold.clear()
        return told

    def tell(self) -> None:
        """Tell now."""
        for record in self.records():
            self._emit(record)

    def close(self) -> None:
        """Nobody is to be told any more."""
        self._untold.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _out_of_patience(self) -> None:
        self._timer = None
        self.tell()
