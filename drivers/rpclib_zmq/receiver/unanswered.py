"""Unanswered messages of a session or peer."""

from __future__ import annotations

from rpclib_zmq.receiver.limits import UNANSWERED
from rpclib_zmq.receiver.message import Message


class Unanswered:
    """Tagged messages delivered to one session or peer and not answered, oldest first."""

    def __init__(self) -> None:
        self.messages: dict[bytes, Message] = {}
        """Messages by tag."""
        self._late = 0

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def load(self) -> int:
        """Number of messages that have not expired."""
        return len(self.messages) - self._late

    def add(self, message: Message) -> None:
        """Remember a message. Beyond the limit the oldest is forgotten."""
        if len(self.messages) >= UNANSWERED:
            self.remove(next(iter(self.messages)))
        self.messages[message.tag] = message

    def remove(self, tag: bytes) -> Message | None:
        """Forget and return the message with that tag: it was answered, passed on, or not delivered after all."""
        message = self.messages.pop(tag, None)
        if message is not None:
            if message.late:
                self._late -= 1
                message.late = False
            if message.consumer is not None:
                message.consumer.busy -= 1
                message.consumer = None
        return message

    def forget_load(self, now: float) -> None:
        """Take expired messages out of the load. Their loss is still reported: the answer may be a stream."""
        for message in self.messages.values():
            if not message.late and message.expired(now):
                message.late = True
                self._late += 1
                if message.consumer is not None:
                    message.consumer.busy -= 1
                    message.consumer = None

    def drain(self) -> list[Message]:
        """Take out all messages."""
        return [message for tag in list(self.messages) if (message := self.remove(tag)) is not None]
