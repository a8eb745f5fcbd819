"""How far the broker may lag behind a sender.

Kernels on both sides buffer tens of megabytes, seconds of small messages: calls would wait behind them, and a
healthy session would look dead. So the broker is asked now and then how far it has got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from rpclib_amqp.channel import Channel, ChannelClosed

ASK_EVERY = 256 * 1024
"""Bytes."""
AHEAD_AT_MOST = 1024 * 1024
"""Bytes on their way, with which the sender is congested."""


class Window:
    """``pressure(source, on)`` is told."""

    def __init__(self, channel: Channel, pressure: Callable[[object, bool], None]) -> None:
        self._channel = channel
        self._pressure = pressure
        self._loop = asyncio.get_running_loop()
        self._ahead = 0
        self._unasked = 0
        """The last of those bytes, which no question follows yet."""

    def written(self, size: int) -> None:
        """So many bytes more have been written to the channel's connection."""
        if self._unasked < ASK_EVERY <= self._unasked + size:
            self._loop.call_soon(self._ask)  # now it could come between the frames of a message
        self._unasked += size
        self._ahead += size
        if self._ahead >= AHEAD_AT_MOST:
            self._pressure(self, True)

    def _ask(self) -> None:
        size, self._unasked = self._unasked, 0
        try:  # a channel does what it is asked in its order among the messages
            answer = self._channel.request(self._channel.basic_qos, prefetch_count=0)
        except ChannelClosed:
            return
        answer.add_done_callback(partial(self._on_answer, size))

    def _on_answer(self, size: int, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._ahead -= size
            if self._ahead < AHEAD_AT_MOST:
                self._pressure(self, False)
