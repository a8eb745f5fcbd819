"""A message inside the receiver, and the two things it meets: where it came from and where it goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

import zmq

Payload = bytes | zmq.Frame
"""What is forwarded unread: bytes while small, zmq's own memory when copying would cost more."""


class Tally:
    """What the receiver holds now and has done so far."""

    def __init__(self) -> None:
        self.held = 0
        """Bytes of messages that wait."""
        self.events: Counter[str] = Counter()


class Message:
    """One message, from its sending to its answer. Times are seconds of the monotonic clock."""

    __slots__ = (
        "asker",
        "expires",
        "holds",
        "name",
        "origin",
        "payload",
        "redelivered",
        "returned",
        "sender",
        "sent",
        "serial",
        "size",
        "tag",
        "taker",
        "waited",
    )

    def __init__(
        self,
        sender: Sender,
        origin: int,
        serial: int,
        tag: bytes,
        name: bytes,
        payload: Payload,
        sent: float,
        ttl: int,
        waited: int,
    ) -> None:
        self.sender = sender
        """Who sent it here, and has a place less in its window while it waits."""
        self.asker = sender
        """Who is told what becomes of it. Not the sender where a server passed on what it was asked."""
        self.origin = origin
        """The number of the asker's session, at the receiver it was sent to."""
        self.serial = serial
        """What the sender calls it: a session by its lane, a peer by a number of its own."""
        self.tag = tag
        self.name = name
        self.payload = payload
        self.size = len(payload)
        self.sent = sent
        self.expires = sent + ttl / 1000 if ttl else None
        self.waited = waited
        self.holds = 1
        """Reasons why it still counts against its sender: its arrival, then each queue it waits in."""
        self.redelivered = False
        """A session that ended may have run it."""
        self.returned = False
        """A peer it was passed on to had nobody for it either."""
        self.taker: Taker | None = None
        """Whose load it counts towards, from the hand-over to the answer."""

    def clock(self, now: float) -> tuple[int, int]:
        """The remaining time to live (0: for ever) and the time waited so far, both in milliseconds."""
        waited = self.waited + int((now - self.sent) * 1000)
        return (0 if self.expires is None else max(1, int((self.expires - now) * 1000))), waited

    def expired(self, now: float) -> bool:
        return self.expires is not None and self.expires <= now

    def release(self) -> None:
        """One reason less; with the last, its sender may send another."""
        if self.holds:
            self.holds -= 1
            if not self.holds:
                self.sender.accepted(self)


class Sender(ABC):
    """The other end a message came from: a session of this machine, or a peer receiver."""

    local: bool

    @abstractmethod
    def accepted(self, message: Message) -> None:
        """The message no longer waits at the sender's expense."""

    @abstractmethod
    def undeliverable(self, message: Message, reason: str) -> None:
        """The message reached nobody and goes back."""

    @abstractmethod
    def worker_lost(self, message: Message) -> None:
        """The worker that had the message went away without an answer."""


class Taker(ABC):
    """Something that takes messages of one name: a subscription of this machine, or one of a peer's."""

    local: bool
    count = 1
    """The subscriptions it stands for."""
    busy = 0
    """Tagged messages it was handed and has not answered."""
    stalled = False
    """It has stopped responding: it is handed nothing, and holds up nobody."""

    @property
    @abstractmethod
    def load(self) -> int:
        """How much it has to do; 0 when it is idle."""

    @property
    @abstractmethod
    def room(self) -> bool:
        """Whether it may be handed a message now."""

    @abstractmethod
    def hand(self, message: Message, now: float) -> bool:
        """Hand over one message. False: the taker is gone and the message was not handed over."""
