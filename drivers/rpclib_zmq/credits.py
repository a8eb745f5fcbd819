"""Credit for the receiver: reports taken messages, so that more are delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rpclib_zmq.header import NO_TAG, TAKEN
from rpclib_zmq.records import PACK

_DELAY = 0.005
"""Seconds a report may wait for another batch, so that it costs no message of its own."""
_MUCH = 2 * 1024 * 1024
"""Bytes that are reported at once."""


class Credits:
    """Messages and bytes taken but not reported, by number of the subscription."""

    def __init__(self, send_record: Callable[[bytes], None], flush: Callable[[], None]) -> None:
        self._send_record = send_record
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        self._unreported: dict[int, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, messages: int, size: int, room: int) -> None:
        """Count taken messages. ``room``: the messages that the receiver may deliver before it needs a report."""
        before, size_before = self._unreported.get(number, (0, 0))
        messages += before
        size += size_before
        self._unreported[number] = messages, size
        if 2 * messages >= room or size >= _MUCH:
            self.report()
            self._flush()  # at once: the receiver delivers more while these are processed
        elif self._timer is None:
            self._timer = self._loop.call_later(_DELAY, self._on_timer)

    def records(self) -> list[bytes]:
        """Take out the records of the report."""
        if not self._unreported:
            return []
        records = [
            PACK(TAKEN, 0, number, 0, size, 0, count, NO_TAG) for number, (count, size) in self._unreported.items()
        ]
        self._unreported.clear()
        return records

    def report(self) -> None:
        """Send the report at the end of the turn."""
        for record in self.records():
            self._send_record(record)

    def close(self) -> None:
        """Discard the report."""
        self._unreported.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        self.report()
