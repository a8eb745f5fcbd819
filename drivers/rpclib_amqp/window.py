"""Limits how far the broker may lag behind a sender.

The kernels of both sides buffer megabytes, which is seconds of small messages: calls would wait behind them, and a
healthy session would look dead. Periodic requests therefore measure how much the broker has processed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

from rpclib_amqp.channel import Channel, ChannelClosed

ASK_EVERY = 7_500
"""Number of frames between two requests. A small message has three frames, a long one more."""
AHEAD_AT_MOST = 30_000
"""Number of unprocessed frames at which the sender is congested. Frames and not bytes: the broker's work depends on
the number of messages, and the kernels' buffers hold few long ones."""


class WindowObserver(Protocol):
    """Gets the beginning and the end of a congestion."""

    def pressure(self, source: object, on: bool) -> None: ...


class Window:
    """Counts the frames that the broker has not processed, and reports ``pressure`` at the limit."""

    def __init__(self, channel: Channel, observer: WindowObserver) -> None:
        self._channel = channel
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._written = 0
        self._asked = 0
        """Number of frames written before the last request."""
        self._answered = 0

    def written(self, frames: int) -> None:
        """``frames`` is the total number of frames written to the channel's connection."""
        before, self._written = self._written, frames
        if before - self._asked < ASK_EVERY <= frames - self._asked:
            self._loop.call_soon(self._ask)  # not at once: the request could split the frames of a message
        if frames - self._answered >= AHEAD_AT_MOST:
            self._observer.pressure(self, True)

    def _ask(self) -> None:
        self._asked = self._written
        try:  # the broker processes a channel's messages and requests in order
            answer = self._channel.request(self._channel.basic_qos, prefetch_count=0)
        except ChannelClosed:
            return
        answer.add_done_callback(partial(self._on_answer, self._asked))

    def _on_answer(self, asked: int, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self._answered = asked
            if self._written - asked < AHEAD_AT_MOST:
                self._observer.pressure(self, False)
