"""Trial consumers: they find out whether a queue may be consumed from.

The broker answers a refused request by closing the channel, and untaken messages of all its consumers are
redelivered and marked as such. So a queue is first consumed from briefly on a separate channel, and then on the
shared one.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rpclib_amqp.channel import Channel
from rpclib_amqp.codec import TAG_LENGTH, Message

_TAG = b"t" * TAG_LENGTH


class TrialConsumer:
    """A consumer on a separate channel, cancelled as soon as it works. It receives at most one message, which is
    older than all messages that the shared channel will receive, and can be taken from here."""

    def __init__(self, channel: Channel) -> None:
        self.arrived: list[Message] = []
        self._channel = channel

    def begin(self, queue: str) -> list[asyncio.Future[Any]]:
        """Start consuming from ``queue``. Returns the requests; when all have succeeded, the queue may be consumed
        from."""
        channel = self._channel
        channel.consumers[_TAG] = self
        return [
            channel.request(channel.basic_qos, prefetch_count=1),
            channel.request(channel.consume, queue, _TAG, True),
        ]

    async def finish(self) -> TrialConsumer | None:
        """Cancel the consumer. Returns itself if a message came: then it owns the channel, and must be taken or
        ended."""
        await self._channel.ask(self._channel.cancel, _TAG)  # not pipelined with `begin`: RabbitMQ 3.10 would crash
        if self.arrived:
            return self
        del self._channel.consumers[_TAG]
        return None

    def notify(self) -> None:
        for message in self.arrived:
            message.waited = time.monotonic()  # time of arrival; `take` makes it the time waited

    @property
    def waiting(self) -> int:
        """Number of messages that can be taken: none if the channel is closed, because the broker has requeued
        them."""
        return len(self.arrived) if self._channel.is_open else 0

    def take(self) -> list[Message]:
        """Take and acknowledge the messages."""
        taken = self.arrived if self._channel.is_open else []
        for message in taken:
            message.waited = time.monotonic() - message.waited
            self._channel.basic_ack(message.tag)
        self.end()
        return taken

    def end(self) -> None:
        """Close the channel. The broker requeues an untaken message."""
        self.arrived = []
        self._channel.discard()
