"""A message inside the receiver, and the two things it meets: where it came from and where it goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

from rpclib_zmq.records import CONTENT, expired
from rpclib_zmq.zmtp import Frame


class Tally:
    """What the receiver holds now and has done so far."""

    def __init__(self) -> None:
        self.held = 0
        """Bytes of messages that wait."""
        self.events: Counter[str] = Counter()


class Message:
    """One message, from its sending to its answer."""

    __slots__ = (
        "asker",
        "content",
        "frame",
        "holds",
        "late",
        "name",
        "origin",
        "redelivered",
        "returned",
        "sender",
        "serial",
        "size",
        "tag",
        "taker",
    )

    def __init__(
        self,
        sender: Sender,
        origin: int,
        serial: int,
        tag: bytes,
        name: bytes,
        content: bytes,
        frame: Frame | None,
        size: int,
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
        self.content = content
        """Its times and payload, forwarded unread, see `rpclib_zmq.records`."""
        self.frame = frame
        """The payload where it is large, because copying would cost more."""
        self.size = size
        self.holds = 0
        """Queues it waits in at its sender's expense."""
        self.redelivered = False
        """A session that ended may have run it."""
        self.returned = False
        """A peer it was passed on to had nobody for it either."""
        self.late = False
        """It was handed over and is past its time: it burdens nobody any more."""
        self.taker: Taker | None = None
        """Whose load it counts towards, from the hand-over to the answer, where takers share their debts."""

    @property
    def payload(self) -> Frame:
        return self.content[CONTENT:] if self.frame is None else self.frame

    def expired(self, now: float) -> bool:
        return expired(self.content, now)

    def keep(self) -> None:
        """It has to wait in a queue."""
        self.holds += 1
        if self.holds == 1:
            self.sender.kept(self)

    def release(self) -> None:
        """It left a queue; with the last, its sender may send another."""
        if self.holds:
            self.holds -= 1
            if not self.holds:
                self.sender.accepted(self)


class Sender(ABC):
    """The other end a message came from: a session of this machine, or a peer receiver."""

    local: bool

    @abstractmethod
    def kept(self, message: Message) -> None:
        """The message waits at the sender's expense; without this it has been accepted when it was brought."""

    @abstractmethod
    def accepted(self, message: Message) -> None:
        """The message no longer waits."""

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
    """Tagged messages it was handed and has not answered, where it shares its debts with other takers."""
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

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        """Hand over what is no message any more. False: it cannot be."""
        return False
