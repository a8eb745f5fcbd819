"""The consumers of one channel, and the acknowledgement of the messages they take.

In the broker, each channel is a process, and each channel is acknowledged separately. Many consumers on one channel
therefore cost less than one channel for each consumer. The delivery tags of a channel number the messages of all
its consumers, so untaken messages of one consumer lie between taken messages of others.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Protocol

from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.codec import TAG_LENGTH, Message, Receiver
from rpclib_amqp.connection import Connection

MAX_PREFETCH = 65535
ACK_DELAY = 0.002
"""Seconds that an acknowledgement may wait for further messages to acknowledge."""
_TAG = f"{{:0{TAG_LENGTH}x}}"
_TAGS = 16**TAG_LENGTH


class Consumer(Receiver, Protocol):
    """A receiver that `Consumers` restores. ``interrupted`` is called with the reason when the broker ended the
    consumer. If ``gone``, the broker has requeued the messages that had arrived and were not taken."""

    def interrupted(self, reason: str, gone: bool) -> None: ...


def acknowledgements(taken: Sequence[int], oldest: int | None) -> list[tuple[int, bool]]:
    """The acknowledgements to send for the tags ``taken``: pairs of a tag and its flag "multiple", which also
    acknowledges all lower tags. ``oldest`` is the lowest tag that arrived and was not taken."""
    last = max(taken)
    if oldest is None or last < oldest:
        return [(last, True)]
    before = [tag for tag in taken if tag < oldest]
    singly = [(tag, False) for tag in taken if tag > oldest]
    return [(max(before), True), *singly] if before else singly


class Consumers:
    """Consumers on one channel. The channel is opened on first use, and opened again after the broker closed it."""

    def __init__(self, connection: Connection, *, acknowledged: bool) -> None:
        self._connection = connection
        self._acknowledged = acknowledged
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._tags = itertools.count()
        self._prefetch = 0
        self._ack_at = MAX_PREFETCH
        """Number of taken messages that are acknowledged without waiting: half of the smallest prefetch."""
        self._taken: list[int] = []
        self._with_untaken: set[Consumer] = set()
        self._ack_due = False
        self._timer: asyncio.TimerHandle | None = None

    async def consume(self, consumer: Consumer, queue: str, prefetch: int) -> bytes:
        """Consume from ``queue``. Returns the consumer tag. Raises ChannelClosed, also if another consumer's
        request closed the channel."""
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                self._channel = await self._open()
        channel, requests = self._channel, []
        if self._acknowledged and prefetch != self._prefetch:  # applies to consumers that start later
            self._prefetch = prefetch
            requests.append(channel.request(channel.basic_qos, prefetch_count=min(prefetch, MAX_PREFETCH)))
        if prefetch:
            self._ack_at = min(self._ack_at, max(1, prefetch // 2))
        tag = self._free_tag(channel)
        channel.consumers[tag] = consumer
        requests.append(channel.request(channel.consume, queue, tag, self._acknowledged))
        await asyncio.gather(*requests)
        return tag

    async def cancel(self, consumer: Consumer, tag: bytes) -> None:
        """Cancel the consumer with the tag that `consume` returned. On return, no further message arrives for
        it."""
        channel = self._channel
        if channel is not None and channel.is_open and channel.consumers.get(tag) is consumer:
            try:
                await channel.ask(channel.cancel, tag)
            except ChannelClosed:
                return  # a closed channel delivers nothing
            channel.consumers.pop(tag, None)  # already removed if its queue was deleted during the request

    def take(self, consumer: Consumer, messages: list[Message]) -> None:
        """The consumer took ``messages``, its oldest. They are acknowledged when enough were taken, at the latest
        after `ACK_DELAY`: each acknowledgement is a system call for the client and work for the broker."""
        if not self._acknowledged:
            return
        self._taken += [message.tag for message in messages]
        if not consumer.arrived:
            self._with_untaken.discard(consumer)
        if len(self._taken) >= self._ack_at:
            if not self._ack_due:
                self._ack_due = True
                if not self._connection.notifying:
                    self._loop.call_soon(self.notified)
        elif self._timer is None:
            self._timer = self._loop.call_later(ACK_DELAY, self._on_ack_timer)

    def keep_untaken(self, consumer: Consumer) -> None:
        """The consumer was notified and did not take all its messages."""
        if self._acknowledged:
            self._with_untaken.add(consumer)

    def give_back(self, consumer: Consumer) -> None:
        """Return the untaken messages of the consumer to their queue."""
        if self._acknowledged and self._channel is not None and self._channel.is_open:
            for message in consumer.arrived:
                self._channel.basic_nack(message.tag, requeue=True)
        consumer.arrived.clear()
        self._with_untaken.discard(consumer)

    def notified(self) -> None:
        """All receivers were notified: acknowledge the taken messages if an acknowledgement is due."""
        if self._ack_due:
            self.settle()

    def settle(self) -> None:
        """Acknowledge all taken messages."""
        self._ack_due = False
        taken, self._taken = self._taken, []
        if taken and self._channel is not None and self._channel.is_open:
            oldest = min((consumer.arrived[0].tag for consumer in self._with_untaken), default=None)
            for tag, before_as_well in acknowledgements(taken, oldest):
                self._channel.basic_ack(tag, before_as_well)

    def _on_ack_timer(self) -> None:
        self._timer = None
        self.settle()

    async def shut(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.shut()

    async def _open(self) -> Channel:
        channel = await self._connection.open_channel(self)
        channel.add_on_cancel_callback(lambda frame: self._on_cancelled(channel, frame.method.consumer_tag))
        self._prefetch = 0
        return channel

    def _free_tag(self, channel: Channel) -> bytes:
        while True:
            tag = _TAG.format(next(self._tags) % _TAGS).encode()
            if tag not in channel.consumers:
                return tag

    def _on_cancelled(self, channel: Channel, tag: str) -> None:
        consumer = channel.consumers.pop(tag.encode(), None)
        if consumer is not None:
            consumer.interrupted("its queue was deleted", False)

    def channel_closed(self, channel: Channel, error: ChannelClosed) -> None:
        """`ChannelObserver`: interrupt the consumers if the broker closed the channel."""
        if error.code:  # 0: the connection ended, or the channel was closed locally
            consumers = {*channel.consumers.values(), *self._with_untaken}
            self._with_untaken.clear()
            self._taken.clear()
            for consumer in consumers:
                consumer.interrupted(f"the broker closed its channel: {error}", self._acknowledged)
