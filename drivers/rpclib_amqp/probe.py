"""Probes: channels in confirm mode for the first message to an address.

Three things can be wrong with an address. On a plain channel, the broker reports only the second without harm:

* The exchange is missing. The broker closes the channel and drops all messages sent after this one.
* No queue is bound. The broker returns the message.
* The quorum queue has lost its leader and elects another. The broker drops the message, and from then on every
  message for that queue from the same channel: a channel learns the node of a queue from its first message.
  Channels that sent to the queue before the loss, or first send to it after the election, are not affected.

On a channel in confirm mode, all three become visible, but the broker answers every message. So only the first
message to an address is sent by a probe, before the main channel sends anything to that address. If the next
message follows soon, it and all later ones use the main channel; otherwise it is treated as a first message again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pika

from rpclib_amqp.channel import Channel
from rpclib_amqp.connection import Connection


class Probe:
    """A channel in confirm mode, for one message at a time. A probe that is not ``clean`` after its message must be
    closed."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._returned = ""
        self._confirmed: asyncio.Future[bool] | None = None
        self._refused = False
        channel.add_on_return_callback(self._on_return)

    @classmethod
    async def open(cls, connection: Connection) -> Probe:
        """Open a probe. Raises ChannelClosed if the connection ended."""
        channel = await connection.open_channel()
        probe = cls(channel)
        await channel.ask(channel.confirm_delivery, probe._on_confirm)
        return probe

    @property
    def clean(self) -> bool:
        """Whether the probe can send another message."""
        return self._channel.is_open and self._confirmed is None and not self._refused

    async def publish(
        self, exchange: str, key: str, mandatory: bool, body: bytes, properties: pika.BasicProperties
    ) -> str | None:
        """Send one message. Returns None if the broker confirmed it, else why it reached no queue. Raises
        ChannelClosed."""
        self._returned = ""
        self._confirmed = confirmed = self._channel.promise()
        self._channel.basic_publish(exchange, key, body, properties, mandatory)
        taken = await confirmed
        self._confirmed = None
        if taken:
            return self._returned or None
        self._refused = True
        return "its queue takes no messages at the moment"

    def close(self) -> None:
        self._channel.discard()

    def _on_confirm(self, frame: Any) -> None:
        if self._confirmed is not None and not self._confirmed.done():
            self._confirmed.set_result(isinstance(frame.method, pika.spec.Basic.Ack))

    def _on_return(self, channel: object, method: pika.spec.Basic.Return, properties: object, body: bytes) -> None:
        self._returned = f"the broker returned it: {method.reply_text}"
