"""pika's AMQP state machine on an asyncio transport.

pika provides the handshake, heartbeats, channels and frames; asyncio provides sockets, TLS and name resolution.
pika's own asyncio adapter is not used: it makes a system call for each frame, has no high-water mark, hides the
reason of a failed connect, and logs normal events as errors. Subclasses of `pika.connection.Connection` implement
exactly the ``_adapter_`` methods below; pika's own adapters do the same.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

import pika
import pika.connection
import pika.exceptions

from rpclib_amqp import codec
from rpclib_amqp.channel import Channel, ChannelObserver
from rpclib_amqp.window import Window

LOG = logging.getLogger("rpclib_amqp")

HIGH_WATER = 4 * 1024 * 1024
"""Bytes buffered for the socket above which the connection is congested. At half of it the congestion ends."""
FLUSH_AT = 64 * 1024
"""Bytes gathered within a loop turn that cause a write before its end, so that the high-water mark takes effect."""
READ_AT_MOST = 256 * 1024
"""Bytes of the receive buffer. It is reused: asyncio would allocate a new one for each read, at the cost of three
more system calls."""
_ONE_MESSAGE = 4
"""Byte strings that make up one message in the output buffer."""
DEAD_PEER = 10
"""Seconds without a TCP acknowledgement by the peer after which the kernel closes the connection."""


class ConnectionObserver(Protocol):
    """Gets the events of a connection. The loop makes these calls, never a method of the connection that the
    observer has called. The exception is ``pressure``: sending may cause it."""

    def pressure(self, source: object, on: bool) -> None: ...

    def blocked(self, reason: str | None) -> None: ...

    def receivers_notified(self) -> None: ...

    def connection_ended(self, error: Exception) -> None: ...


class Connection(pika.connection.Connection, asyncio.BufferedProtocol):
    """One AMQP connection. All frames sent within a loop turn leave in one write, or two."""

    def __init__(self, parameters: pika.ConnectionParameters, observer: ConnectionObserver) -> None:
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._stream: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_size = 0
        self._flush_scheduled = False
        self._quiet = True
        self._reader = codec.Reader()
        self._buffer = memoryview(bytearray(READ_AT_MOST))
        self._reached: list[codec.Receiver] = []
        self.notifying = False
        self._window: Window | None = None
        self._handshake: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        super().__init__(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=lambda _, error: None,  # `open` raises it
            on_close_callback=self._on_ended,
            internal_connection_workflow=False,
        )
        self.add_on_connection_blocked_callback(self._on_blocked)
        self.add_on_connection_unblocked_callback(self._on_unblocked)

    @classmethod
    async def open(
        cls, parameters: pika.ConnectionParameters, tls: ssl.SSLContext | None, observer: ConnectionObserver
    ) -> Connection:
        """Connect and shake hands. Raises the errors of asyncio, ssl and pika. Cancellation closes the
        connection."""
        loop = asyncio.get_running_loop()
        connection = cls(parameters, observer)
        try:
            await loop.create_connection(lambda: connection, parameters.host, parameters.port, ssl=tls)
            await connection._handshake
        except BaseException:
            await connection.abort()
            raise
        return connection

    async def open_channel(self, observer: ChannelObserver | None = None) -> Channel:
        """Open a channel, the end of which is reported to ``observer``. Raises ChannelClosed if the connection
        ended."""
        channel = Channel.on(self, observer)
        try:
            await channel.opened
        except asyncio.CancelledError:
            channel.discard()
            raise
        return channel

    def limit(self, window: Window) -> None:
        """Report every write to ``window``, which limits how far the broker may lag behind."""
        self._window = window

    @property
    def longest_frame(self) -> int:
        """Largest body, in bytes, that fits one frame; 0 until the handshake has negotiated it."""
        return self._body_max_length or 0

    def emit(self, method: bytes, content: bytes, body: bytes, size: int) -> None:
        """Send one message that the codec packed. ``size`` is the length of ``body``."""
        out = self._out
        out += (method, content, body, codec.END)
        size += len(method) + len(content) + 1
        self.bytes_sent += size
        self.frames_sent += 3
        self._out_size += size
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._end_turn)
            if self._quiet:
                self.flush()
        elif self._out_size >= FLUSH_AT:
            self.flush()

    def send_frames(self, frames: bytes) -> None:
        """Send packed frames."""
        self._adapter_emit_data(frames)

    def flush(self) -> None:
        """Write the gathered frames to the transport."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            if self._stream is not None and not self._stream.is_closing():
                self._stream.write(data)
                if self._window is not None:
                    self._window.written(self.frames_sent)

    def flush_next_turn(self) -> None:
        """Flush at the end of the next loop turn. Call this when a task that was just woken is about to send: its
        first send would schedule a flush one turn later."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        # After a turn with at most one message, the next message is written at once and not at the end of its
        # turn.
        self._flush_scheduled = False
        self._quiet = len(self._out) <= _ONE_MESSAGE
        self.flush()

    def receive(self, receiver: codec.Receiver, message: codec.Message) -> None:
        """Give ``receiver`` one message. `notify_receivers` notifies it when all messages that arrived together are
        read."""
        if not receiver.arrived:
            self._reached.append(receiver)
        receiver.arrived.append(message)

    def notify_receivers(self) -> None:
        """Notify the receivers of new messages, then the observer."""
        reached = self._reached
        if reached:
            self._reached = []
            self.notifying = True
            for receiver in reached:
                receiver.notify()
            self.notifying = False
            self._observer.receivers_notified()

    async def finish(self, within: float) -> bool:
        """Close with a handshake, so that the broker processes everything sent before. Returns False if that took
        longer than ``within`` seconds, or if the connection had already ended."""
        try:
            async with asyncio.timeout(within):
                if not self.is_open:
                    return False
                self.close()
                await self._ended.wait()
                return True
        except TimeoutError:
            return False
        finally:
            await self.abort()

    async def abort(self) -> None:
        """End the connection at once, and return when the socket is closed."""
        if not self._handshake.done():
            self._handshake.cancel()
        if self._stream is not None:
            self.flush()
            self.drop()
            await self._ended.wait()

    def drop(self, error: Exception | None = None) -> None:
        """Start ending the connection, with ``error`` as the reason. Buffered output is lost."""
        if self._stream is not None:
            self._error = self._error or error or pika.exceptions.ConnectionClosedByClient(200, "closed")
            self._remove_heartbeat()
            self._stream.abort()

    # The adapter methods of pika.connection.Connection.

    def _adapter_connect_stream(self) -> None:
        raise NotImplementedError("opened by Connection.open")

    def _adapter_disconnect_stream(self) -> None:
        if self._stream is None:
            return
        self.flush()
        if isinstance(self._error, pika.exceptions.ConnectionClosedByClient):
            # Sends TLS close_notify: without it the broker may keep the connection for half a minute.
            self._stream.close()
        else:
            self._stream.abort()

    def _adapter_emit_data(self, data: bytes) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._end_turn)
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= FLUSH_AT:
            self.flush()

    def _adapter_call_later(self, delay: float, callback: Callable[[], Any]) -> object:
        return self._loop.call_later(delay, self._guarded, callback)

    def _adapter_remove_timeout(self, timeout_id: Any) -> None:
        timeout_id.cancel()

    def _adapter_add_callback_threadsafe(self, callback: Callable[..., Any]) -> None:
        self._loop.call_soon_threadsafe(self._guarded, callback)

    def _on_data_available(self, data_in: bytes) -> None:
        if not codec.IN_USE:
            super()._on_data_available(data_in)
            return
        data = self._frame_buffer + data_in if self._frame_buffer else data_in
        consumed, frames = self._reader.read(
            data, self._channels, self.longest_frame, self._process_frame, self._reached
        )
        self._frame_buffer = data[consumed:]
        self.frames_received += frames
        self.bytes_received += len(data_in)  # the heartbeat check counts incomplete frames too

    def _create_channel(self, channel_number: int, on_open_callback: Callable[[Any], Any] | None) -> Channel:
        return Channel(self, channel_number, on_open_callback)

    # The methods of asyncio.BufferedProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=HIGH_WATER, low=HIGH_WATER // 2)
        _set_socket_options(stream.get_extra_info("socket"))
        self._guarded(self._on_stream_connected)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._guarded(self._on_data_available, bytes(self._buffer[:nbytes]))
        self._guarded(self.notify_receivers)

    def pause_writing(self) -> None:
        self._observer.pressure(self, True)

    def resume_writing(self) -> None:
        self._observer.pressure(self, False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream = None
        hung_up = pika.exceptions.StreamLostError(str(exc or "the broker closed the connection"))
        error: Exception = self._error or hung_up
        if not self._handshake.done():
            self._handshake.set_exception(error)
            # For a handshake that ended early, pika logs guesses as errors. A ConnectionError avoids that.
            error = ConnectionError(str(error))
        self._guarded(self._on_stream_terminated, error)
        self._ended.set()

    def _guarded(self, function: Callable[..., object], *args: object) -> None:
        """Call ``function``. An unexpected exception is logged and ends the connection: asyncio would drop the
        exception, and the connection would look alive but not work."""
        try:
            function(*args)
        except Exception as error:
            LOG.exception("AMQP connection given up: unexpected error")
            self.drop(error)

    def _on_open(self, _: pika.connection.Connection) -> None:
        if not self._handshake.done():
            self._handshake.set_result(None)

    def _on_ended(self, _: pika.connection.Connection, error: Exception) -> None:
        self._observer.connection_ended(error)

    def _on_blocked(self, _: pika.connection.Connection, frame: Any) -> None:
        self._observer.blocked(str(frame.method.reason))

    def _on_unblocked(self, _: pika.connection.Connection, frame: Any) -> None:
        self._observer.blocked(None)


def _set_socket_options(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_USER_TIMEOUT", DEAD_PEER * 1000),
        ("TCP_KEEPIDLE", DEAD_PEER),
        ("TCP_KEEPINTVL", 3),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, name):  # macOS lacks some of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
