"""ZMTP 3.0, the protocol of ZeroMQ, for local connections: handshake and frames.

Programs and their receiver do not use libzmq here. A socket of libzmq reads and writes in a thread of its own,
which costs each message two wake-ups at either end. Its other features (reconnecting, queues, patterns) are not
wanted between a program and its receiver. Source: https://rfc.zeromq.org/spec/23.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from rpclib.memory import LONG, keep_freed

_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_FLAGS: Final = _MORE | _LONG | _COMMAND
_GREETING: Final = 64
"""Bytes of the greeting."""
_SHORT: Final = 256
_SMALL: Final = 16 * 1024
"""Size of a frame up to which a partial frame is simply parsed again."""
_MOST: Final = 1024
"""Frames of one message, at most."""
_PACK_LONG: Final = struct.Struct(">BQ").pack
_UNPACK_LONG: Final = struct.Struct(">Q").unpack_from
_MECHANISM: Final = b"NULL".ljust(20, b"\0")

Frame = bytes | bytearray
"""A long frame is a bytearray, to avoid the cost of a copy."""


class Malformed(Exception):
    """Raised for bytes that are not ZMTP, and for a frame or message beyond the limits."""


def handshake(socket_type: bytes) -> bytes:
    """Greeting and READY, to be sent at once. Messages wait for the READY of the other end: libzmq demands it."""
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + _MECHANISM
    return greeting.ljust(_GREETING, b"\0") + bytes((_COMMAND, len(ready))) + ready


def prefix(size: int, more: bool = False) -> bytes:
    """The prefix of a frame of ``size`` bytes. ``more``: another frame of the message follows."""
    if size < _SHORT:
        return bytes((more, size))
    return _PACK_LONG(_LONG | more, size)


class Inbound:
    """Parses a stream of bytes. ``on_message(frames)`` gets each complete message.

    Pass received bytes to `feed`. While `room` is not None, receive into it instead and call `filled`.
    ``on_ready()`` is called when the other end accepts messages.
    """

    def __init__(
        self, on_message: Callable[[list[Frame]], None], on_ready: Callable[[], None], longest: int
    ) -> None:
        self._when_ready = on_message
        self._on_message: Callable[[list[Frame]], None] = _too_early
        self._on_ready = on_ready
        self._longest = longest
        self._greeted = False
        self._rest = b""
        """Bytes of an incomplete frame."""
        self._frames: list[Frame] = []
        self._flags = 0
        self._buffer = bytearray()
        """The long frame that is being received."""
        self.room: memoryview | None = None
        """The part of the long frame that is still to be received."""

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises Malformed for invalid ZMTP, or a frame longer than ``longest`` bytes."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        offset, end = 0, len(data)
        if not self._greeted:
            if end < _GREETING:
                self._rest = data
                return
            self._greet(data)
            offset = _GREETING
        while offset + 1 < end:
            flags, size = data[offset], data[offset + 1]
            start = offset + 2
            if flags & _LONG:
                start = offset + 9
                if start > end:
                    break
                (size,) = _UNPACK_LONG(data, offset + 1)
                if size > self._longest:
                    raise Malformed(f"a frame of {size} bytes")
            after = start + size
            if after > end:
                if size <= _SMALL:
                    break
                self._make_room(flags, size, data[start:])
                return
            offset = after
            self._frame(flags, data[start:after])
        self._rest = data[offset:]

    def filled(self, size: int) -> None:
        """Account for ``size`` bytes received into `room`. Raises Malformed."""
        assert self.room is not None
        if size < len(self.room):
            self.room = self.room[size:]
            return
        self.room = None
        buffer, self._buffer = self._buffer, bytearray()
        self._frame(self._flags, buffer)

    def _make_room(self, flags: int, size: int, begun: bytes) -> None:
        if size > LONG:
            keep_freed()
        self._flags, self._buffer = flags, bytearray(size)
        self._buffer[: len(begun)] = begun
        self.room = memoryview(self._buffer)[len(begun) :]

    def _greet(self, data: bytes) -> None:
        if data[0] != 0xFF or data[9] != 0x7F or data[10] < 3 or data[12:32] != _MECHANISM:
            raise Malformed("no greeting of ZMTP 3 without encryption")
        self._greeted = True

    def _frame(self, flags: int, body: Frame) -> None:
        frames = self._frames
        if not flags & ~(_MORE | _LONG):
            frames.append(body)
            if not flags & _MORE:
                self._frames = []
                self._on_message(frames)
            elif len(frames) >= _MOST:
                raise Malformed(f"a message of more than {_MOST} frames")
        elif flags & ~_FLAGS or body.startswith(b"\x05ERROR"):
            raise Malformed("a frame of no known kind, or an error")
        elif body.startswith(b"\x05READY"):
            self._on_message = self._when_ready
            self._on_ready()


def _too_early(frames: list[Frame]) -> None:
    raise Malformed("a message before it was ready")
