"""How far the broker may lag behind a sender.

Kernels on both sides buffer megabytes, seconds of small messages: calls would wait behind them, and a healthy
session would look dead. So the broker is asked now and then how far it has got.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from rpclib_amqp.channel import Channel, ChannelClosed

ASK_EVERY = 7_500
"""Frames; a small message has three, a long one as many more as its body."""
AHEAD_AT_MOST = 30_000
"""Frames on their way, with which the sender is congested. Not bytes: what takes the broker its time is messages,
and the kernels' buffers hold few that are long."""


class Window:
    """``pressure(source, on)`` is told."""

    def __init__(self, channel: Channel, pressure: Callable[[object, bool], None]) -> None:
        self._channel = channel
        self._pressure = pressure
        self._loop = asyncio.get_running_loop()
        self._written = 0
        self._asked = 0
        """Those that a question follows."""
        self._answered = 0

    def written(self, frames: int) -> None:
        """So many frames have been written to the channel's connection in all."""
        before, self._written = self._written, frames
        if before - self._asked < ASK_EVERY <= frames - self._asked:
            self._loop.call_soon(self._ask)  # now it could come between the frames of a message
        if frames - self._answered >= AHEAD_AT_MOST:
            self._pressure(self, True)

    def _ask(self) -> None:
        self._asked = self._written
        try:  # a channel does what it is asked in its order among the messages
            answer = self._channel.request(self._channel.basic_qos, prefetch_count=0)
        except ChannelClosed:
            return
        answer.add_done_callback(partial(self._on_answer, self._asked))

    def _on_answer(self, asked: int, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._answered = asked
            if self._written - asked < AHEAD_AT_MOST:
                self._pressure(self, False)
