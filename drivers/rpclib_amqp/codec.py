"""The two hot paths of AMQP: sending a message and receiving one.

pika makes five objects and a dozen byte strings for every message in either direction. What travels here always has
the same shape: a method frame, a header frame with at most one property, one body frame. That shape is packed and
read in one go; whatever looks different is left to pika. So is everything when pika is of a version that does not
agree with this module, which is found out at import.
"""

from __future__ import annotations

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

_FRAME = struct.Struct(">BHL")  # type, channel, size of the payload
_DELIVER = struct.Struct(">BHLLB4sQB")  # the same, the method, its consumer tag, delivery tag, redelivered
_HEADER = struct.Struct(">BHLHHQ")  # a header frame up to its properties
_CONTENT = struct.Struct(">BHLHHQHBBHL")  # a header frame without properties, and the head of a body frame
_EXPIRING = struct.Struct(">BHLHHQHB")  # a header frame up to the length of its expiration
_REST = struct.Struct(">BBHL")  # the end of that, and the head of a body frame
_METHOD, _HEAD, _BODY, _END = 1, 2, 3, 0xCE
_BASIC = 60
_BASIC_DELIVER = 60 << 16 | 60
_EXPIRATION = 1 << 8
_OVERHEAD = 8
"""Bytes of a frame beside its payload."""
END = b"\xce"
"""The last byte of every frame."""
TAG_LENGTH = 4
"""Bytes of a consumer tag."""


class Message(Delivery):
    """``tag`` is its delivery tag: its number among the deliveries of its channel."""

    __slots__ = ("tag",)

    def __init__(self, body: bytes, redelivered: bool, tag: int) -> None:
        self.body = body
        self.redelivered = redelivered
        self.waited = 0.0
        self.tag = tag


class Receiver(Protocol):
    """Who gets the messages of one consumer, and is told when everything that came together is there."""

    arrived: list[Message]

    def tell(self) -> None: ...


def publish(channel: int, exchange: str, key: str, mandatory: bool) -> bytes:
    """The method frame that all messages to one address share."""
    method = pika.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    return pika.frame.Method(channel, method).marshal()


def content(channel: int, size: int, expiration: bytes) -> bytes:
    """What is between that frame and the ``size`` bytes of a body, which `END` follows. ``expiration`` is decimal
    milliseconds, or empty."""
    if not expiration:
        return _CONTENT.pack(_HEAD, channel, 14, _BASIC, 0, size, 0, _END, _BODY, channel, size)
    length = len(expiration)
    return (
        _EXPIRING.pack(_HEAD, channel, 15 + length, _BASIC, 0, size, _EXPIRATION, length)
        + expiration
        + _REST.pack(_END, _BODY, channel, size)
    )


def read(
    data: bytes,
    channels: Mapping[int, Any],
    longest: int,
    process: Callable[[Any], None],
    reached: list[Receiver],
) -> tuple[int, int]:
    """Give messages of one body frame, of at most ``longest`` bytes, to the ``consumers`` of their channel, and
    every other frame to ``process``, in order; add to ``reached`` who had nothing and now has something. Returns
    how many bytes, and frames of messages, that were; the rest of ``data`` is incomplete. Raises what pika raises
    for bytes that are no frames.
    """
    start, available, frames = 0, len(data), 0
    while (rest := available - start) >= _OVERHEAD:
        end = available
        if rest >= _DELIVER.size:
            kind, number, size, method, length, consumer, tag, redelivered = _DELIVER.unpack_from(data, start)
            end = start + size + _OVERHEAD
            if method == _BASIC_DELIVER and kind == _METHOD and length == TAG_LENGTH and number in channels:
                if available - end < _HEADER.size:
                    break
                kind, again, size, _, _, length = _HEADER.unpack_from(data, end)
                if kind == _HEAD and again == number and 0 < length <= longest:
                    body = end + size + _OVERHEAD
                    last = body + length + _OVERHEAD - 1
                    if last >= available:
                        break
                    kind, again, size = _FRAME.unpack_from(data, body)
                    ended = data[end - 1] == data[body - 1] == data[last] == _END
                    receiver = channels[number].consumers.get(consumer)
                    if kind == _BODY and again == number and size == length and ended and receiver is not None:
                        if not receiver.arrived:
                            reached.append(receiver)
                        receiver.arrived.append(Message(data[body + 7 : last], redelivered & 1 == 1, tag))
                        start = last + 1
                        frames += 3
                        continue
        consumed, frame = pika.frame.decode_frame(data[start:end])
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
    consumed, frames = read(data, channels, size, lambda frame: None, reached)
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
