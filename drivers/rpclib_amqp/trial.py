"""Whether a queue may be consumed from, found out where a refusal harms nobody.

The broker answers a refused request by closing the channel, and what its consumers had not taken comes back marked
as redelivered. So a queue is consumed from for an instant elsewhere before it is on the channel that all share.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rpclib_amqp.channel import Channel
from rpclib_amqp.codec import TAG_LENGTH, Message

_TAG = b"t" * TAG_LENGTH


class Trial:
    """At most one message comes in that instant, older than all that come later; it can be taken from here."""

    def __init__(self, channel: Channel) -> None:
        self.arrived: list[Message] = []
        self._channel = channel

    def begin(self, queue: str) -> list[asyncio.Future[Any]]:
        """Request what it takes. When all is answered, the queue may be consumed from."""
        channel = self._channel
        channel.consumers[_TAG] = self
        return [
            channel.request(channel.basic_qos, prefetch_count=1),
            channel.request(channel.consume, queue, _TAG, True),
        ]

    async def finish(self) -> Trial | None:
        """End what has begun. Returns this if anything came: then the channel, which has a consumer, is its."""
        await self._channel.ask(self._channel.cancel, _TAG)  # any sooner, and RabbitMQ 3.10 crashes
        if self.arrived:
            return self
        del self._channel.consumers[_TAG]
        return None

    def tell(self) -> None:
        for message in self.arrived:
            message.waited = time.monotonic()  # until it is taken, the time of arrival

    @property
    def waiting(self) -> int:
        """How many messages can be taken. The broker takes back what lies on a channel that it closes."""
        return len(self.arrived) if self._channel.is_open else 0

    def take(self) -> list[Message]:
        """Hand over and acknowledge."""
        taken = self.arrived if self._channel.is_open else []
        for message in taken:
            message.waited = time.monotonic() - message.waited
            self._channel.basic_ack(message.tag)
        self.end()
        return taken

    def end(self) -> None:
        """What was not taken goes back to its queue."""
        self.arrived = []
        self._channel.discard()
