"""A pika channel whose answers can be awaited and which drops no delivery."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

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
    """The channel closed before the broker answered. ``code`` is the broker's reply code, or 0 if the connection
    ended or the channel was closed locally."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class ChannelObserver(Protocol):
    """Gets the end of a channel."""

    def channel_closed(self, channel: Channel, error: ChannelClosed) -> None: ...


class Channel(pika.channel.Channel):
    """An AMQP channel. ``consumers`` maps each consumer tag to a `codec.Receiver`.

    A receiver also gets the messages that arrive between a cancel and its confirmation. pika would reject these,
    and the broker would requeue them marked as redelivered.
    """

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
        self._observer: ChannelObserver | None = None

    @classmethod
    def on(cls, connection: Connection, observer: ChannelObserver | None) -> Channel:
        """Start opening a channel; await its ``opened``. Raises ChannelClosed if the connection ended, or already
        has as many channels as the broker allows."""
        try:
            channel = connection.channel(on_open_callback=_on_open)
        except pika.exceptions.ConnectionWrongStateError:
            raise ChannelClosed(0, "the connection ended") from None
        except pika.exceptions.NoFreeChannels:
            text = "the broker allows no more channels for a connection: use several transports"
            raise ChannelClosed(CHANNEL_ERROR, text) from None
        assert isinstance(channel, cls)
        channel._observer = observer
        channel.add_on_close_callback(channel._on_closed)
        return channel

    def request(self, method: Callable[..., object], *args: object, **kwargs: object) -> asyncio.Future[Any]:
        """Call ``method`` of this channel. Returns a future of the broker's answer, which may fail with
        ChannelClosed.

        Requests are pipelined: a request does not wait for the answer to the one before. Raises ChannelClosed.
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
        """Start a consumer; pass this method to `request`. pika's own method would register the consumer a second
        time."""
        self._raise_if_not_open()
        method = pika.spec.Basic.Consume(queue=queue, consumer_tag=tag.decode(), no_ack=not acknowledged)
        self._rpc(method, callback, [pika.spec.Basic.ConsumeOk])

    def cancel(self, tag: bytes, callback: Callable[[Any], object]) -> None:
        """Cancel a consumer; pass this method to `request`."""
        self._raise_if_not_open()
        method = pika.spec.Basic.Cancel(consumer_tag=tag.decode())
        self._rpc(method, callback, [pika.spec.Basic.CancelOk])

    def send(self, frames: bytes) -> None:
        """Send packed frames that have no answer."""
        if self.is_open:
            self.connection.send_frames(frames)

    async def closed(self, within: float) -> bool:
        """Wait up to ``within`` seconds for the channel to close. Returns whether it closed."""
        try:
            async with asyncio.timeout(within):
                await self._gone.wait()
        except TimeoutError:
            pass
        return self._gone.is_set()

    def discard(self) -> None:
        """Close without waiting. The broker requeues deliveries that were not acknowledged."""
        if not (self.is_closed or self.is_closing):
            self.close()

    async def shut(self) -> None:
        """Close, and return when the broker has confirmed the close or the connection has ended."""
        self.discard()
        if not self.is_closed:
            await self._gone.wait()

    def promise(self) -> asyncio.Future[Any]:
        """A future that fails with ChannelClosed when the channel closes."""
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
        if self._observer is not None:
            self._observer.channel_closed(self, error)

    # Overridden methods of pika.channel.Channel; called by pika.

    def _on_deliver(self, method_frame: Any, header_frame: Any, body: bytes) -> None:
        method = method_frame.method
        receiver = self.consumers.get(method.consumer_tag.encode())
        if len(body) > LONG:
            keep_freed()
        if receiver is not None:
            self._receive(receiver, Message(body, method.redelivered, method.delivery_tag))

    def _rpc(self, method: Any, callback: Any = None, acceptable_replies: Any = None) -> None:
        # Unlike pika's, sends a request before the last one is answered: pika's takes a round trip for each.
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
        # Unlike pika's, logs no warning: a closed channel is the regular answer to "does this queue exist?".
        self._send_method(pika.spec.Channel.CloseOk())
        method = method_frame.method
        self._closing_reason = pika.exceptions.ChannelClosedByBroker(method.reply_code, method.reply_text)
        if self.is_closing:
            self._answers = deque([self._on_closeok])  # the broker answers only the pending close
        else:
            self._transition_to_closed()


def _on_open(channel: pika.channel.Channel) -> None:
    assert isinstance(channel, Channel)
    if not channel.opened.done():
        channel.opened.set_result(None)
