"""What a peer owes: answers to messages it was handed."""

from __future__ import annotations

from rpclib_zmq.receiver.limits import OWED
from rpclib_zmq.receiver.message import Message


class Debts:
    """Tagged messages that were handed to one peer and have not been answered, oldest first."""

    def __init__(self) -> None:
        self.owed: dict[bytes, Message] = {}
        """By tag."""
        self._late = 0

    def __len__(self) -> int:
        return len(self.owed)

    @property
    def load(self) -> int:
        """Those that are not past their time."""
        return len(self.owed) - self._late

    def add(self, message: Message) -> None:
        """Remember, up to a bound: beyond it the oldest is forgotten."""
        if len(self.owed) >= OWED:
            self.settle(next(iter(self.owed)))
        self.owed[message.tag] = message

    def settle(self, tag: bytes) -> Message | None:
        """It was answered, passed on, or not handed over after all. Returns what was owed for."""
        message = self.owed.pop(tag, None)
        if message is not None:
            if message.late:
                self._late -= 1
                message.late = False
            if message.taker is not None:
                message.taker.busy -= 1
                message.taker = None
        return message

    def forget_load(self, now: float) -> None:
        """A message past its time burdens nobody any more; its loss would still be told (it may be a stream)."""
        for message in self.owed.values():
            if not message.late and message.expired(now):
                message.late = True
                self._late += 1
                if message.taker is not None:
                    message.taker.busy -= 1
                    message.taker = None

    def drain(self) -> list[Message]:
        """Take out everything that is owed."""
        return [message for tag in list(self.owed) if (message := self.settle(tag)) is not None]
