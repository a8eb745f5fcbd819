"""A pika channel whose answers can be awaited and whose deliveries are never thrown away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pika.channel
import pika.exceptions
import pika.frame
import pika.spec

from rpclib.memory import LONG, keep_freed
from rpclib_amqp.codec import Message

if TYPE_CHECKING:
    from rpclib_amqp.connection import Connection


CHANNEL_ERROR = 504


class ChannelClosed(Exception):
    """The channel ended before it answered. ``code`` is the broker's; 0 when the connection ended."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Channel(pika.channel.Channel):
    """``consumers`` holds a `codec.Receiver` for each consumer tag. It gets messages also between a cancel and its
    confirmation, where pika would put them back into their queue marked as redelivered."""

    def __init__(
        self, connection: Connection, number: int, on_open_callback: Callable[[pika.channel.Channel], None] | None
    ) -> None:
        super().__init__(connection, number, on_open_callback)
        self._loop = asyncio.get_running_loop()
        self._receive = connection.receive
        self._waiting: set[asyncio.Future[Any]] = set()
        self._gone = asyncio.Event()
        self.opened: asyncio.Future[Any] = self.promise()
        self.consumers: dict[bytes, Any] = {}
        self._answers: deque[Callable[[Any], object] | None] = deque()
        self.on_closed: Callable[[ChannelClosed], None] = lambda error: None

    @classmethod
    def on(cls, connection: Connection) -> Channel:
        """A channel that is opening; await its ``opened``. Raises ChannelClosed when the connection ended, or has
        as many as the broker allows."""
        try:
            channel = connection.channel(on_open_callback=_on_open)
        except pika.exceptions.ConnectionWrongStateError:
            raise ChannelClosed(0, "the connection ended") from None
        except pika.exceptions.NoFreeChannels:
            text = "the broker allows no more channels for a connection: use several transports"
            raise ChannelClosed(CHANNEL_ERROR, text) from None
        assert isinstance(channel, cls)
        channel.add_on_close_callback(channel._on_closed)
        return channel

    def request(self, method: Callable[..., object], *args: object, **kwargs: object) -> asyncio.Future[Any]:
        """Call ``method`` of this channel; the result is what will be the broker's answer, or ChannelClosed.

        Requests leave one after the other without waiting for answers. Raises ChannelClosed.
        """
        answer = self.promise()

        def on_answer(frame: Any) -> None:
            if not answer.done():
                answer.set_result(frame.method)

        try:
            method(*args, callback=on_answer, **kwargs)
        except pika.exceptions.ChannelWrongStateError:
            answer.cancel()
            raise ChannelClosed(0, "the channel ended") from None
        return answer

    async def ask(self, method: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Make a `request` and return the broker's answer. Raises ChannelClosed."""
        return await self.request(method, *args, **kwargs)

    def consume(self, queue: str, tag: bytes, acknowledged: bool, callback: Callable[[Any], object]) -> None:
        """A method to `request`; pika's own keeps book of consumers, and so does ours."""
        self._raise_if_not_open()
        method = pika.spec.Basic.Consume(queue=queue, consumer_tag=tag.decode(), no_ack=not acknowledged)
        self._rpc(method, callback, [pika.spec.Basic.ConsumeOk])

    def cancel(self, tag: bytes, callback: Callable[[Any], object]) -> None:
        """A method to `request`."""
        self._raise_if_not_open()
        method = pika.spec.Basic.Cancel(consumer_tag=tag.decode())
        self._rpc(method, callback, [pika.spec.Basic.CancelOk])

    def send(self, frames: bytes) -> None:
        """Send what is packed already and has no answer."""
        if self.is_open:
            self.connection._adapter_emit_data(frames)

    async def closed(self, within: float) -> bool:
        """Whether the channel ended, which is waited for."""
        try:
            async with asyncio.timeout(within):
                await self._gone.wait()
        except TimeoutError:
            pass
        return self._gone.is_set()

    def discard(self) -> None:
        """Close without waiting; what was delivered and not acknowledged goes back to its queue."""
        if not (self.is_closed or self.is_closing):
            self.close()

    async def shut(self) -> None:
        """Close and return when the broker has done so, or is gone."""
        self.discard()
        if not self.is_closed:
            await self._gone.wait()

    def promise(self) -> asyncio.Future[Any]:
        promise = self._loop.create_future()
        self._waiting.add(promise)
        promise.add_done_callback(self._waiting.discard)
        return promise

    def _on_closed(self, _: pika.channel.Channel, reason: Exception) -> None:
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            error = ChannelClosed(reason.reply_code, reason.reply_text)
        else:
            error = ChannelClosed(0, str(reason))
        for promise in list(self._waiting):
            if not promise.done():
                promise.set_exception(error)
        self._gone.set()
        self.on_closed(error)

    # Replacements of pika's own; called by pika.

    def _on_deliver(self, method_frame: Any, header_frame: Any, body: bytes) -> None:
        method = method_frame.method
        receiver = self.consumers.get(method.consumer_tag.encode())
        if len(body) > LONG:
            keep_freed()
        if receiver is not None:
            self._receive(receiver, Message(body, method.redelivered, method.delivery_tag))

    def _rpc(self, method: Any, callback: Any = None, acceptable_replies: Any = None) -> None:
        # pika's sends the next request when the last one is answered, which takes a round trip for each.
        if acceptable_replies:
            self._answers.append(callback)
        self._send_method(method)

    def _handle_content_frame(self, frame_value: Any) -> None:
        method = getattr(frame_value, "method", None)
        if method is None or pika.spec.has_content(method.INDEX) or not self._answers:
            super()._handle_content_frame(frame_value)
        elif (callback := self._answers.popleft()) is not None:
            callback(frame_value)

    def _on_close_from_broker(self, method_frame: Any) -> None:
        # As pika's, without its warning: whoever asks whether a queue exists gets a no by this way.
        self._send_method(pika.spec.Channel.CloseOk())
        method = method_frame.method
        self._closing_reason = pika.exceptions.ChannelClosedByBroker(method.reply_code, method.reply_text)
        if self.is_closing:
            self._answers = deque([self._on_closeok])  # of what was asked, only the close is still answered
        else:
            self._transition_to_closed()


def _on_open(channel: pika.channel.Channel) -> None:
    assert isinstance(channel, Channel)
    if not channel.opened.done():
        channel.opened.set_result(None)
