"""Credit for the receiver: reports taken messages, so that more are delivered."""

from __future__ import annotations

import asyncio

from rpclib_zmq.session.channel import Channel

_DELAY = 0.005
"""Seconds a report may wait for another batch, so that it costs no message of its own."""
_MUCH = 2 * 1024 * 1024
"""Bytes that are reported at once."""


class Credits:
    """Decides when the messages that a session took are reported: with another batch, at once, or after a delay."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unreported = channel.taken.unreported
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, number: int, messages: int, size: int, room: int) -> None:
        """Count taken messages. ``room``: the messages that the receiver may deliver before it needs a report."""
        before, size_before = self._unreported.get(number, (0, 0))
        messages += before
        size += size_before
        self._unreported[number] = messages, size
        if 2 * messages >= room or size >= _MUCH:
            self.report()
            self._channel.flush()  # at once: the receiver delivers more while these are processed
        elif self._timer is None:
            self._timer = self._loop.call_later(_DELAY, self._on_timer)

    def report(self) -> None:
        """Send the report at the end of the turn."""
        for record in self._channel.taken.records():
            self._channel.send_record(record)

    def close(self) -> None:
        """Discard the report."""
        self._unreported.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _on_timer(self) -> None:
        self._timer = None
        self.report()
