"""The two hot paths of AMQP: packing a message to send and parsing received messages.

pika makes five objects and a dozen byte strings for every message in either direction. Messages of rpclib always
have the same shape: a method frame, a header frame with at most one property, one body frame. This module packs and
parses that shape in one step and leaves every other frame to pika. If the installed version of pika does not agree
with this module, which is checked at import, pika does everything.
"""

from __future__ import annotations

import functools
import logging
import struct
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import pika
import pika.frame
import pika.spec

from rpclib.driver import Delivery

LOG = logging.getLogger("rpclib_amqp")

_FRAME = struct.Struct(">BHL")  # frame type, channel, payload size
_LEAD = struct.Struct(">BHLLB")  # frame type, channel, payload size, method, length of the consumer tag
_MIDDLE = struct.Struct(">BBHLHHQ")  # the end of a frame, and a header frame up to its properties
_TAIL = struct.Struct(">BBH")  # the end of a frame, and a body frame up to its size
_CONTENT = struct.Struct(">BHLHHQHBBHL")  # a header frame without properties, and the head of a body frame
_METHOD, _HEAD, _BODY, _END = 1, 2, 3, 0xCE
_BASIC = 60
_BASIC_DELIVER = 60 << 16 | 60
_EXPIRATION = 1 << 8
_METHOD_FIXED = 18
"""Bytes of a method frame's payload without the names of the exchange and the routing key."""
_HEADER_FIXED = 12
"""Bytes of a header frame's payload without the properties."""
_OVERHEAD = 8
"""Bytes of a frame without its payload."""
END = b"\xce"
"""The last byte of every frame."""
TAG_LENGTH = 4
"""Bytes of a consumer tag."""


class Message(Delivery):
    """A received message. ``tag`` is the delivery tag: the number of the message among the deliveries of its
    channel."""

    __slots__ = ("tag",)

    def __init__(self, body: bytes, redelivered: bool, tag: int) -> None:
        self.body = body
        self.redelivered = redelivered
        self.waited = 0.0
        self.tag = tag


class Receiver(Protocol):
    """Receives the messages of one consumer. Messages are appended to ``arrived``; then `notify` is called once for
    all messages that were read together."""

    arrived: list[Message]

    def notify(self) -> None: ...


def publish(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    """Pack the method frame that all messages to one address share."""
    method = pika.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    return pika.frame.Method(channel, method).marshal()


def content(channel: int, size: int, expiration: bytes) -> bytes:
    """Pack the bytes between the method frame and a body of ``size`` bytes: the header frame and the head of the
    body frame. `END` follows the body. ``expiration`` is decimal milliseconds, or empty."""
    if not expiration:
        return _CONTENT.pack(_HEAD, channel, 14, _BASIC, 0, size, 0, _END, _BODY, channel, size)
    length = len(expiration)
    return _expiring(length).pack(
        _HEAD, channel, 15 + length, _BASIC, 0, size, _EXPIRATION, length, expiration, _END, _BODY, channel, size
    )


@functools.lru_cache
def _expiring(length: int) -> struct.Struct:
    """The struct of `content` for an expiration of ``length`` bytes."""
    return struct.Struct(f">BHLHHQHB{length}sBBHL")


class Shape:
    """The common bytes of messages on one channel whose method frames have the same size, and whose header frames
    have the same size. ``lead``, ``middle`` and ``tail`` are equal in all of them; ``struct`` unpacks the values
    between."""

    def __init__(self, number: int, method: int, header: int) -> None:
        self.number = number
        self.struct = struct.Struct(f">12s4sQB{method - _METHOD_FIXED}x12sQ{header - _HEADER_FIXED}x4sL")
        self.lead = _LEAD.pack(_METHOD, number, method, _BASIC_DELIVER, TAG_LENGTH)
        self.middle = _MIDDLE.pack(_END, _HEAD, number, header, _BASIC, 0, 0)[:12]
        self.tail = _TAIL.pack(_END, _BODY, number)

    @classmethod
    def of(cls, data: bytes, start: int) -> Shape | None:
        """The shape of the message at ``start``. Returns None if too little has arrived to tell, or if it is not a
        delivery with a body. While the header frame is incomplete, the shape is a guess."""
        if len(data) - start < _LEAD.size:
            return None
        kind, number, method, what, length = _LEAD.unpack_from(data, start)
        if kind != _METHOD or what != _BASIC_DELIVER or length != TAG_LENGTH or method < _METHOD_FIXED:
            return None
        end = start + method + _OVERHEAD - 1
        if len(data) - end < _MIDDLE.size:
            return _shape(number, method, _HEADER_FIXED)
        _, kind, _, header, _, _, size = _MIDDLE.unpack_from(data, end)
        return _shape(number, method, header) if kind == _HEAD and header >= _HEADER_FIXED and size else None


_shape = functools.lru_cache(Shape)


class Reader:
    """Parses the bytes that a connection receives. Most messages have the shape of the one before and are parsed in
    one step."""

    def __init__(self) -> None:
        self._shape = _shape(1, _METHOD_FIXED, _HEADER_FIXED)

    def read(
        self,
        data: bytes,
        channels: Mapping[int, Any],
        longest: int,
        process: Callable[[Any], None],
        reached: list[Receiver],
    ) -> tuple[int, int]:
        """Parse all complete frames of ``data``, in order.

        Messages whose body is one frame of at most ``longest`` bytes go to the ``consumers`` of their channel,
        all other frames to ``process``. Receivers whose ``arrived`` was empty are added to ``reached``.

        Returns the number of bytes parsed and the number of frames of messages; the rest of ``data`` is
        incomplete. Raises pika's errors for bytes that are no frames.
        """
        start, available, frames, shape = 0, len(data), 0, self._shape
        while available - start >= _OVERHEAD:
            body = start + shape.struct.size
            if body < available:
                lead, consumer, tag, redelivered, middle, size, tail, again = shape.struct.unpack_from(data, start)
                if lead == shape.lead and middle == shape.middle and tail == shape.tail and 0 < size <= longest:
                    last = body + size
                    if last >= available:
                        break
                    channel = channels.get(shape.number)
                    receiver = None if channel is None else channel.consumers.get(consumer)
                    if again == size and data[last] == _END and receiver is not None:
                        if not receiver.arrived:
                            reached.append(receiver)
                        receiver.arrived.append(Message(data[body:last], redelivered & 1 == 1, tag))
                        start = last + 1
                        frames += 3
                        continue
            found = Shape.of(data, start)
            if found is not None and found is not shape:
                self._shape = shape = found
                continue
            if found is not None and body >= available:
                break
            _, _, size = _FRAME.unpack_from(data, start)
            consumed, frame = pika.frame.decode_frame(data[start : start + size + _OVERHEAD])
            if frame is None:
                break
            start += consumed
            process(frame)
        return start, frames


def agrees_with_pika() -> bool:
    """Whether this module packs what pika packs and reads what pika reads."""
    try:
        return all(
            _packs_alike(size, ttl) and _reads_alike(size, ttl) for size in (1, 300) for ttl in (None, "1500")
        )
    except Exception:
        return False


def _packs_alike(size: int, ttl: str | None) -> bool:
    expected = _marshalled(pika.spec.Basic.Publish(exchange="ex", routing_key="key", mandatory=True), size, ttl)
    return publish(7, "ex", "key", True) + content(7, size, (ttl or "").encode()) + bytes(size) + END == expected


def _reads_alike(size: int, ttl: str | None) -> bool:
    method = pika.spec.Basic.Deliver(
        consumer_tag="0123", delivery_tag=1 << 40, redelivered=True, exchange="ex", routing_key="key"
    )
    data = _marshalled(method, size, ttl)
    receiver = SimpleNamespace(arrived=[])
    channels = {7: SimpleNamespace(consumers={b"0123": receiver})}
    reached: list[Receiver] = []
    consumed, frames = Reader().read(data, channels, size, lambda frame: None, reached)
    seen = [(each.tag, each.redelivered, each.body) for each in receiver.arrived]
    return (consumed, frames, seen, reached) == (len(data), 3, [(1 << 40, True, bytes(size))], [receiver])


def _marshalled(method: pika.spec.Basic.Publish | pika.spec.Basic.Deliver, size: int, ttl: str | None) -> bytes:
    properties = pika.spec.BasicProperties(expiration=ttl)
    frames = (
        pika.frame.Method(7, method),
        pika.frame.Header(7, size, properties),
        pika.frame.Body(7, bytes(size)),
    )
    return b"".join(each.marshal() for each in frames)


IN_USE = agrees_with_pika()
if not IN_USE:
    LOG.warning("pika %s is new to this version of rpclib: it works, but messages take more time", pika.__version__)
