"""Records: what a session and its receiver send each other, many in one zmq message.

A batch is one zmq message. Its first frame holds records, one after another; payloads of `LARGE` bytes and more
follow as frames of their own, in the order of their records.

A record is a head, the payload unless it is large, and a name. The head begins with what concerns one hop (kind,
length of the name, number) and goes on with what stays the same on the whole way (size of the payload, ttl, waited,
value, tag). A receiver thus forwards everything between the first `HOP` bytes and the name in one piece, the
record's *content*, and looks into it only where a message has to wait.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from rpclib_zmq.header import NO_TAG, age

LARGE: Final = 8192
"""Bytes of a payload from which handing it on as a frame is cheaper than copying it (measured)."""
FLUSH_AT: Final = 64 * 1024
"""Bytes gathered that are sent at once: bounds a batch, and how long its first record waits."""
LONGEST: Final = 16 * FLUSH_AT
"""Bytes of the first frame of a batch, at most: what a receiver does in one go. Room for telling what each of a
session's subscriptions took."""

_HEAD: Final = struct.Struct("<BxHIIIII16s")
HEAD: Final = _HEAD.size
PACK: Final = _HEAD.pack
"""kind, length of the name, number, size, ttl, waited, value, tag."""
UNPACK: Final = _HEAD.unpack_from

_HOP: Final = struct.Struct("<BxHI")
HOP: Final = _HOP.size
PACK_HOP: Final = _HOP.pack
"""kind, length of the name, number."""
_CONTENT: Final = struct.Struct("<IIII16s")
CONTENT: Final = _CONTENT.size
PACK_CONTENT: Final = _CONTENT.pack
"""size, ttl, waited, value, tag; the payload follows unless it is large."""
_UNPACK_TIMES: Final = struct.Struct("<4xIII").unpack_from

Broken = struct.error
"""Raised for bytes that are no records."""


class Record(NamedTuple):
    """One record, decoded. Fields that a kind does not use are zero."""

    kind: int
    number: int = 0
    ttl: int = 0
    """Milliseconds the message stays worth delivering; 0: for ever."""
    waited: int = 0
    """Milliseconds it had spent in queues when it was stamped."""
    value: int = 0
    tag: bytes = NO_TAG
    size: int = 0
    payload: bytes = b""
    """Empty where it is large: then it is the next frame."""
    name: bytes = b""

    def encode(self) -> bytes:
        """The record's bytes; ``size`` is that of the payload or, where that is empty, of the next frame."""
        kind, number, ttl, waited, value, tag, size, payload, name = self
        return PACK(kind, len(name), number, len(payload) or size, ttl, waited, value, tag) + payload + name


def read(data: bytes, offset: int) -> tuple[Record, int]:
    """The record that begins at ``offset``, and where the next one does. Raises Broken when it is cut off."""
    kind, length, number, size, ttl, waited, value, tag = UNPACK(data, offset)
    start = offset + HEAD
    middle = start + size if size < LARGE else start
    end = middle + length
    if end > len(data):
        raise Broken("a record is longer than its batch")
    return Record(kind, number, ttl, waited, value, tag, size, data[start:middle], data[middle:end]), end


def expired(content: bytes, now: float) -> bool:
    """Whether a message with that content is worth nothing any more."""
    ttl, _, stamped = _UNPACK_TIMES(content)
    return bool(ttl) and age(stamped, now) >= ttl


def clock(content: bytes, now: float) -> tuple[int, int]:
    """The time to live that a message with that content has left (0: for ever; never less than 1) and the time it
    has waited so far, both in milliseconds."""
    ttl, waited, stamped = _UNPACK_TIMES(content)
    passed = age(stamped, now)
    return max(1, ttl - passed) if ttl else 0, min(waited + passed, 0xFFFFFFFF)
