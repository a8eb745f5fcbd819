"""Records: what a session and its receiver send each other, many in one zmq message.

A batch is one zmq message. Its first frame holds records, one after another; payloads of `LARGE` bytes and more
follow as frames of their own, in the order of their records.

A record is a head, the payload unless it is large, and a name. The head begins with the fields of one hop (kind,
length of the name, number), followed by the fields that stay the same on the whole way (size of the payload, ttl,
waited, value, tag). A receiver forwards the bytes between the hop fields and the name unchanged. They are the
*content* of the record; a receiver reads it only when a message has to wait.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from rpclib_zmq.protocol.header import NO_TAG, age

LARGE: Final = 8192
"""Size of a payload from which a separate frame is cheaper than copying (measured)."""
FLUSH_AT: Final = 64 * 1024
"""Size of a batch that is sent at once. Bounds a batch, and the wait of its first record."""
LONGEST: Final = 16 * FLUSH_AT
"""Bytes of the first frame of a batch, at most. Bounds the time a receiver spends on one batch. Enough for a TAKEN
record of every subscription of a session."""

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
"""Raised for malformed records."""


class Record(NamedTuple):
    """One record, decoded. Fields that a kind does not use are zero."""

    kind: int
    number: int = 0
    ttl: int = 0
    """Milliseconds until the message expires; 0: never."""
    waited: int = 0
    """Milliseconds in queues before the stamp."""
    value: int = 0
    tag: bytes = NO_TAG
    size: int = 0
    payload: bytes = b""
    """The payload; empty if large, then the next frame is the payload."""
    name: bytes = b""

    def encode(self) -> bytes:
        """The encoded record. ``size`` is used for a large payload, which is the next frame."""
        kind, number, ttl, waited, value, tag, size, payload, name = self
        return PACK(kind, len(name), number, len(payload) or size, ttl, waited, value, tag) + payload + name


def read(data: bytes, offset: int) -> tuple[Record, int]:
    """The record at ``offset``, and the offset of the next one. Raises Broken for a truncated record."""
    kind, length, number, size, ttl, waited, value, tag = UNPACK(data, offset)
    start = offset + HEAD
    middle = start + size if size < LARGE else start
    end = middle + length
    if end > len(data):
        raise Broken("a record is longer than its batch")
    return Record(kind, number, ttl, waited, value, tag, size, data[start:middle], data[middle:end]), end


def expired(content: bytes, now: float) -> bool:
    """Whether a message with that content has expired."""
    ttl, _, stamped = _UNPACK_TIMES(content)
    return bool(ttl) and age(stamped, now) >= ttl


def clock(content: bytes, now: float) -> tuple[int, int]:
    """Remaining time to live (0: unlimited; else at least 1) and time waited of a message with that content.

    Both are in milliseconds.
    """
    ttl, waited, stamped = _UNPACK_TIMES(content)
    passed = age(stamped, now)
    return max(1, ttl - passed) if ttl else 0, min(waited + passed, 0xFFFFFFFF)
