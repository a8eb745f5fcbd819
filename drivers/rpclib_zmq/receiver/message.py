"""A message inside the receiver, its sender and its consumers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

from rpclib_zmq.protocol.records import CONTENT, expired
from rpclib_zmq.protocol.zmtp import Frame


class Stats:
    """Counters of the receiver."""

    def __init__(self) -> None:
        self.held = 0
        """Bytes of waiting messages."""
        self.events: Counter[str] = Counter()


class Message:
    """One message, from its arrival to its answer."""

    __slots__ = (
        "caller",
        "consumer",
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
        """The session or peer that sent the message. Its window is smaller by one while the message waits."""
        self.caller = sender
        """The session or peer to notify of a failure. Not the sender where a server passed on a request."""
        self.origin = origin
        """The number of the caller's session, at the receiver it was sent to."""
        self.serial = serial
        """The identifier given by the sender: the lane of a session, or a serial number of a peer."""
        self.tag = tag
        self.name = name
        self.content = content
        """Times and payload, forwarded unread. See `rpclib_zmq.protocol.records`."""
        self.frame = frame
        """A large payload, kept apart because copying costs more. None for a small one."""
        self.size = size
        self.holds = 0
        """Number of queues in which the message counts against the window of its sender."""
        self.redelivered = False
        """Whether a session that ended may have run the message."""
        self.returned = False
        """Whether a peer has returned the message as undeliverable."""
        self.late = False
        """Whether the message expired after delivery, and no longer counts as load."""
        self.consumer: Consumer | None = None
        """The consumer whose `busy` counts the message until its answer. Only set for consumers of a peer."""

    @property
    def payload(self) -> Frame:
        return self.content[CONTENT:] if self.frame is None else self.frame

    def expired(self, now: float) -> bool:
        return expired(self.content, now)

    def keep(self) -> None:
        """Count one more queue in which the message waits."""
        self.holds += 1
        if self.holds == 1:
            self.sender.kept(self)

    def release(self) -> None:
        """Count one queue less. After the last, the window of the sender opens again."""
        if self.holds:
            self.holds -= 1
            if not self.holds:
                self.sender.accepted(self)


class Sender(ABC):
    """The origin of a message: a session of this machine, or a peer."""

    local: bool

    @abstractmethod
    def kept(self, message: Message) -> None:
        """The message waits in a queue. Not called for a message that is delivered at once."""

    @abstractmethod
    def accepted(self, message: Message) -> None:
        """The message no longer waits."""

    @abstractmethod
    def undeliverable(self, message: Message, reason: str) -> None:
        """The message reached no consumer and goes back."""

    @abstractmethod
    def worker_lost(self, message: Message) -> None:
        """The worker that had the message ended without answering."""


class Consumer(ABC):
    """A consumer of one destination: a subscription of this machine, or of a peer."""

    local: bool
    count = 1
    """Number of subscriptions that the consumer represents."""
    busy = 0
    """Number of unanswered messages. Only counted for consumers of a peer, which share one `Unanswered`."""
    stalled = False
    """Whether the consumer has stopped responding. A stalled consumer gets nothing and blocks no sender."""

    @property
    @abstractmethod
    def load(self) -> int:
        """Number of messages to be worked on; 0 when idle."""

    @property
    @abstractmethod
    def room(self) -> bool:
        """Whether a message may be delivered now."""

    @abstractmethod
    def deliver(self, message: Message, now: float) -> bool:
        """Deliver one message. False: the consumer is gone and the message was not delivered."""

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        """Deliver content without a `Message`. False: the consumer cannot."""
        return False
