"""Telling the receiver how much was taken, so that it hands over more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rpclib_zmq.header import NO_TAG, TAKEN
from rpclib_zmq.records import PACK

_PATIENCE = 0.005
"""Seconds for which it may wait for records to go along with: one by one, calls cost no message for it."""
_MUCH = 2 * 1024 * 1024
"""Bytes that are told at once."""


class Credits:
    """What subscriptions took and the receiver was not told, by their numbers."""

    def __init__(self, say: Callable[[bytes], None], flush: Callable[[], None]) -> None:
        self._say = say
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        self._untold: dict[int, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, messages: int, size: int, room: int) -> None:
        """More was taken. ``room`` is how many messages in all, since it was told last, leave the receiver none."""
        before, size_before = self._untold.get(number, (0, 0))
        messages += before
        size += size_before
        self._untold[number] = messages, size
        if 2 * messages >= room or size >= _MUCH:
            self.tell()
            self._flush()  # now: it hands over more while these are worked on
        elif self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._out_of_patience)

    def records(self) -> list[bytes]:
        """What there is to tell, which counts as told."""
        if not self._untold:
            return []
        told = [PACK(TAKEN, 0, number, 0, size, 0, count, NO_TAG) for number, (count, size) in self._untold.items()]
        self._untold.clear()
        return told

    def tell(self) -> None:
        """Tell when the turn ends."""
        for record in self.records():
            self._say(record)

    def close(self) -> None:
        """Nobody is to be told any more."""
        self._untold.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _out_of_patience(self) -> None:
        self._timer = None
        self.tell()
