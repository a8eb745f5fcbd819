"""The first message to an address, on a channel of its own.

Three things can be wrong with an address, and the broker tells of none of them on a plain channel:

* Its exchange is missing. The broker closes the channel, and with it goes everything that was sent after.
* No queue is bound. That one does tell: it returns the message.
* Its quorum queue has lost its leader and elects another. The broker drops the message, and then every other one
  for that queue from the same channel, for ever: a channel learns where a queue lives from its first message. A
  channel that knew the queue before, or meets it after the election, is fine.

A channel in confirm mode tells of all three. It would cost an answer for every message, so only the first goes this
way, before the channel that all others use has anything to do with the address. If the next message follows soon,
it and all later ones use that channel; else it is a first message again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pika

from rpclib_amqp.channel import Channel
from rpclib_amqp.connection import Connection


class Scout:
    """A channel in confirm mode. One message at a time; of no use any more once it is not ``clean``."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._returned = ""
        self._confirmed: asyncio.Future[bool] | None = None
        self._refused = False
        channel.add_on_return_callback(self._on_return)

    @classmethod
    async def open(cls, connection: Connection) -> Scout:
        """Raises ChannelClosed when the connection ended."""
        channel = await connection.open_channel()
        scout = cls(channel)
        await channel.ask(channel.confirm_delivery, scout._on_confirm)
        return scout

    @property
    def clean(self) -> bool:
        return self._channel.is_open and self._confirmed is None and not self._refused

    async def publish(
        self, exchange: str, key: str, mandatory: bool, body: bytes, properties: pika.BasicProperties
    ) -> str | None:
        """None when the message is where it should be, else why it is nowhere. Raises ChannelClosed."""
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
