"""Headers: greetings of sessions, and messages between receivers. A message has two frames.

The header is a fixed struct and a name. The payload is a frame of its own, forwarded unread. After its WELCOME a
session exchanges records instead (`records`), whose kinds are listed here too. HELLO and
WELCOME keep their magic, kind and JSON payload in every protocol version, so that two versions can tell each other
apart; everything else may change with `PROTOCOL`.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any, Final, NamedTuple

from rpclib.address import Address, Kind

PROTOCOL: Final = 3
MAGIC: Final = b"RZ"
NO_TAG: Final = bytes(16)

# Session and receiver: headers, each in a message of its own.
HELLO: Final = 1  # payload: JSON greeting; the first message on every connection
WELCOME: Final = 2  # payload: JSON greeting
STATUS: Final = 19  # asks for, and carries, JSON about the receiver
QUIT: Final = 20  # asks the receiver to finish and leave

# Session and receiver: records. "number" is the session's own number for a subscription or question.
REFUSED: Final = 3  # number, name: why that question cannot be answered; number 0: why the session ends
PING: Final = 4
BYE: Final = 5  # asks for, and confirms, the end of a session, after everything sent before
SUBSCRIBE: Final = 6  # number, value: prefetch, name
SUBSCRIBED: Final = 7  # number
STOP: Final = 8  # number: deliver nothing more
STOPPED: Final = 9  # number
RELEASE: Final = 10  # number: forget the subscription, pass on its untaken messages
TAKEN: Final = 11  # number, value: messages, ttl: bytes that were taken
COUNT: Final = 12  # number, name
COUNTED: Final = 13  # number, value: subscriptions of that name
DATA: Final = 14  # number: lane, ttl, waited, value: stamp, tag, payload, name: on its way to the receiver
DELIVER: Final = 15  # number, ttl, waited, value: stamp, tag, payload: on its way to a subscription
REDELIVER: Final = 22  # as DELIVER, for a message that may have run
ACCEPTED: Final = 16  # number: lane, 0 for all; value: messages, ttl: bytes that left the receiver's queues
UNDELIVERABLE: Final = 17  # tag, payload, name: why a message comes back
LOST: Final = 18  # tag: the worker that had the message is gone
LEAVING: Final = 21  # value: 1 pause sending, because the receiver leaves, 0 resume; number: to be echoed.
# As a header: the receiver is leaving and begins no session.

# Receiver and receiver.
LINK: Final = 30  # payload: JSON greeting, from the connecting receiver
LINKED: Final = 31  # payload: JSON greeting, or why there will be no link
TOPICS: Final = 32  # number: 1 snapshot, 0 changes, value: version; payload: JSON, subscriptions by name
SEEN: Final = 33  # value: the version confirmed
PASS: Final = 34  # ttl, waited, number: session of the caller, value: serial, tag, name, payload
ARRIVED: Final = 35  # payload: serials that left the peer's queues
RETURNED: Final = 36  # number: session, value: serial or 0, tag, name: reason, payload: a message comes back
WORKER_LOST: Final = 37  # number: session, tag: the worker that had the message at the peer is gone

LAYOUT: Final = struct.Struct("<2sBxIIII16s")
FIXED: Final = LAYOUT.size
PACK: Final = LAYOUT.pack
UNPACK: Final = LAYOUT.unpack_from

ONE: Final = ord("O")
ALL: Final = ord("A")
INBOX: Final = ord("I")

LONGEST_TRANSIT: Final = 24 * 3600 * 1000

INBOX_KEYS: Final = re.compile(r"[0-9a-f]{1,32}\.[0-9a-f]{1,12}\.[0-9a-f]{1,12}")
_NAME = re.compile(
    rb"O[A-Za-z0-9_-]{1,60}/[A-Za-z0-9_-]{1,80}/[A-Za-z0-9_.:@-]{0,100}"
    rb"|A[A-Za-z0-9_-]{1,60}/[A-Za-z0-9_-]{1,80}"
    rb"|I[0-9a-f.]{1,60}"
)


class Header(NamedTuple):
    """One header, decoded. Fields that a kind does not use are zero."""

    kind: int
    ttl: int = 0
    """Milliseconds until the message expires; 0: never."""
    waited: int = 0
    """Milliseconds the message has spent in queues."""
    number: int = 0
    value: int = 0
    tag: bytes = NO_TAG
    name: bytes = b""

    def encode(self) -> bytes:
        kind, ttl, waited, number, value, tag, name = self
        return PACK(MAGIC, kind, ttl, waited, number, value, tag) + name


def decode(data: bytes) -> Header | None:
    """The header in ``data``, or None if ``data`` is no header."""
    if len(data) < FIXED or not data.startswith(MAGIC):
        return None
    _, kind, ttl, waited, number, value, tag = UNPACK(data)
    return Header(kind, ttl, waited, number, value, tag, data[FIXED:])


def name_of(address: Address) -> bytes:
    """The name of an address on the wire."""
    if address.kind is Kind.ONE:
        return f"O{address.exchange}/{address.topic}/{address.key}".encode()
    if address.kind is Kind.ALL:
        return f"A{address.exchange}/{address.topic}".encode()
    return f"I{address.key}".encode(errors="replace")


def is_name(name: bytes) -> bool:
    """Whether ``name`` may be subscribed to."""
    return _NAME.fullmatch(name) is not None


def inbox_prefix(node: str, session: int) -> bytes:
    """Prefix of the names of a session's inboxes. The node routes replies to their machine."""
    return f"I{node}.{session:x}.".encode()


def milliseconds(seconds: float | None) -> int:
    """A time to live in milliseconds, from 1 to about 49 days; 0 for None."""
    if seconds is None:
        return 0
    return min(max(1, round(seconds * 1000)), 0xFFFFFFFF)


def stamp(now: float) -> int:
    """A time of the monotonic clock, in milliseconds modulo 2**32. All processes of a machine share this clock."""
    return int(now * 1000) & 0xFFFFFFFF


def age(stamped: int, now: float) -> int:
    """Milliseconds since a stamp: the time in sockets, which is long if a process was stopped."""
    passed = (int(now * 1000) - stamped) & 0xFFFFFFFF
    return passed if passed < LONGEST_TRANSIT else 0  # longer: the other process has another clock


def read_json(payload: bytes) -> dict[str, Any]:
    """The JSON object in ``payload``; an empty object if it contains none."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def greeting(kind: int) -> bytes:
    """The header of a HELLO or WELCOME."""
    return Header(kind).encode()
