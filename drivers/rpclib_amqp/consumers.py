"""The consumers of one channel, and acknowledging what they take.

A channel is a process of the broker and is acknowledged on its own, so that many consumers on one cost less than
each on its own. Its delivery tags count the messages of all of them: what one has not taken yet lies between what
others have.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.codec import TAG_LENGTH, Message, Receiver
from rpclib_amqp.connection import Connection

MAX_PREFETCH = 65535
PATIENCE = 0.002
"""Seconds for which acknowledging may wait for more to acknowledge."""
_TAG = f"{{:0{TAG_LENGTH}x}}"
_TAGS = 16**TAG_LENGTH


class Consumer(Receiver, Protocol):
    """``interrupted`` is told why nothing comes any longer, though nobody cancelled it. With ``gone``, what has
    arrived is the broker's again."""

    def interrupted(self, reason: str, gone: bool) -> None: ...


def acknowledgements(taken: Sequence[int], oldest: int | None) -> list[tuple[int, bool]]:
    """What to send for the tags ``taken``, while ``oldest`` is the lowest that arrived and was not: tags, each
    with whether it stands for all before it as well."""
    last = max(taken)
    if oldest is None or last < oldest:
        return [(last, True)]
    before = [tag for tag in taken if tag < oldest]
    singly = [(tag, False) for tag in taken if tag > oldest]
    return [(max(before), True), *singly] if before else singly


class Consumers:
    """On a channel that is opened when it is needed, and again when the broker closed it."""

    def __init__(self, connection: Connection, *, acknowledged: bool) -> None:
        self._connection = connection
        self._acknowledged = acknowledged
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._tags = itertools.count()
        self._prefetch = 0
        self._many = MAX_PREFETCH
        """As many as are acknowledged without waiting for more: half of what the most modest consumer gets."""
        self._taken: list[int] = []
        self._waiting: set[Consumer] = set()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None

    async def consume(self, consumer: Consumer, queue: str, prefetch: int) -> bytes:
        """Consume from ``queue``. Returns the consumer tag. Raises ChannelClosed, be it for another's request."""
        async with self._opening:
            if self._channel is None or not self._channel.is_open:
                self._channel = await self._open()
        channel, requests = self._channel, []
        if self._acknowledged and prefetch != self._prefetch:  # it applies to the consumers that follow
            self._prefetch = prefetch
            requests.append(channel.request(channel.basic_qos, prefetch_count=min(prefetch, MAX_PREFETCH)))
        if prefetch:
            self._many = min(self._many, max(1, prefetch // 2))
        tag = self._free_tag(channel)
        channel.consumers[tag] = consumer
        requests.append(channel.request(channel.consume, queue, tag, self._acknowledged))
        await asyncio.gather(*requests)
        return tag

    async def cancel(self, consumer: Consumer, tag: bytes) -> None:
        """Return when nothing comes any longer for ``tag``, which `consume` gave to the consumer."""
        channel = self._channel
        if channel is not None and channel.is_open and channel.consumers.get(tag) is consumer:
            try:
                await channel.ask(channel.cancel, tag)
            except ChannelClosed:
                return  # then nothing comes either
            channel.consumers.pop(tag, None)  # unless its queue was deleted meanwhile

    def take(self, consumer: Consumer, messages: list[Message]) -> None:
        """The consumer took ``messages``, its oldest. They are acknowledged once that is worth a frame, at the
        latest `PATIENCE` later: each is a system call here, and work for the broker."""
        if not self._acknowledged:
            return
        self._taken += [message.tag for message in messages]
        if not consumer.arrived:
            self._waiting.discard(consumer)
        if len(self._taken) >= self._many:
            if not self._due:
                self._due = True
                if not self._connection.telling:
                    self._loop.call_soon(self.told)
        elif self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._out_of_patience)

    def leave(self, consumer: Consumer) -> None:
        """The consumer was told of its messages and did not take all."""
        if self._acknowledged:
            self._waiting.add(consumer)

    def give_back(self, consumer: Consumer) -> None:
        """What the consumer has not taken goes back to its queue."""
        if self._acknowledged and self._channel is not None and self._channel.is_open:
            for message in consumer.arrived:
                self._channel.basic_nack(message.tag, requeue=True)
        consumer.arrived.clear()
        self._waiting.discard(consumer)

    def told(self) -> None:
        """Acknowledge what was taken if that is much."""
        if self._due:
            self.settle()

    def settle(self) -> None:
        """Acknowledge what was taken."""
        self._due = False
        taken, self._taken = self._taken, []
        if taken and self._channel is not None and self._channel.is_open:
            oldest = min((consumer.arrived[0].tag for consumer in self._waiting), default=None)
            for tag, before_as_well in acknowledgements(taken, oldest):
                self._channel.basic_ack(tag, before_as_well)

    def _out_of_patience(self) -> None:
        self._timer = None
        self.settle()

    async def shut(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.shut()

    async def _open(self) -> Channel:
        channel = await self._connection.open_channel()
        channel.on_closed = partial(self._on_closed, channel)
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

    def _on_closed(self, channel: Channel, error: ChannelClosed) -> None:
        if error.code:  # else with its connection, or by us
            consumers = {*channel.consumers.values(), *self._waiting}
            self._waiting.clear()
            self._taken.clear()
            for consumer in consumers:
                consumer.interrupted(f"the broker closed its channel: {error}", self._acknowledged)
