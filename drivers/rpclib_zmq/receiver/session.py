"""Sessions: the processes of this machine, as the receiver sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpclib_zmq import header
from rpclib_zmq.header import DELIVER, NO_TAG, ONE, REDELIVER
from rpclib_zmq.receiver.account import Account
from rpclib_zmq.receiver.debts import Debts
from rpclib_zmq.receiver.limits import PREFETCH, UNTAKEN_BYTES
from rpclib_zmq.receiver.message import Message, Sender, Taker, Tally
from rpclib_zmq.records import FLUSH_AT, PACK_HOP, Record
from rpclib_zmq.zmtp import Frame

if TYPE_CHECKING:
    from rpclib_zmq.receiver.place import Place

_LONGEST_REASON = 1000


class Subscription(Taker):
    """One subscription of one session, with what it was handed and has not taken."""

    local = True

    def __init__(self, session: Session, number: int, prefetch: int, place: Place) -> None:
        self.session = session
        self.number = number
        self.place = place
        self.prefetch = min(prefetch, PREFETCH) or PREFETCH
        self.messages = 0
        """How many it was handed and has not taken."""
        self.bytes = 0
        """Their size."""
        self.untaken: deque[Message] = deque()
        """Those of them that others could take."""
        self._one = place.name[0] == ONE
        self._deliver = PACK_HOP(DELIVER, 0, number)
        self._redeliver = PACK_HOP(REDELIVER, 0, number)

    @property
    def load(self) -> int:
        return max(self.messages, self.session.debts.load)

    @property
    def room(self) -> bool:
        return self.messages < self.prefetch and self.bytes < UNTAKEN_BYTES and not self.stalled

    def hand(self, message: Message, now: float) -> bool:
        session = self.session
        if session.gone:
            return False
        if self._one:  # before `emit`, which sends and clears `unsent` when the batch is full with this message
            self.untaken.append(message)
            session.unsent.append(message)
        session.emit(self._redeliver if message.redelivered else self._deliver, message.content, message.frame)
        self.messages += 1
        self.bytes += message.size
        if self._one and message.tag != NO_TAG:
            session.debts.add(message)
        return True

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        if self.session.gone:
            return False
        self.session.emit(self._deliver, content, frame)
        self.messages += 1
        self.bytes += size
        return True

    def took(self, messages: int, size: int) -> bool:
        """The session took the oldest ``messages``, of ``size`` bytes. Returns whether something may wait for that:
        while there was room, nothing did."""
        full = not self.room
        self.messages = max(0, self.messages - messages)
        self.bytes = max(0, self.bytes - size)
        untaken = self.untaken
        for _ in range(min(messages, len(untaken))):
            untaken.popleft()
        return full


class Session(Sender):
    """One connection of one process, from its HELLO to its BYE or its death."""

    local = True

    def __init__(
        self,
        send: Callable[[list[Frame]], bool],
        number: int,
        pid: int,
        program: str,
        tally: Tally,
        due: set[Session],
    ) -> None:
        self.number = number
        self.pid = pid
        self.program = program
        self.subscriptions: dict[int, Subscription] = {}
        self.debts = Debts()
        self.heard = 0.0
        """When it last sent anything."""
        self.stalled = False
        self.gone = False
        """It has ended."""
        self.unsent: list[Message] = []
        """Messages handed to it that were not sent to it, or could not be."""
        self.waiting = 0
        """Messages of it that wait at its expense."""
        self.account = Account()
        self.hushed = False
        """It was told that the receiver leaves."""
        self.quiet = False
        """It has confirmed that it sends nothing new."""
        self.unwatch: Callable[[], None] | None = None
        """Ends the watch over its process, where there is one."""
        self._hushes = 0
        self._send = send
        self._tally = tally
        self._due = due
        self._out: list[bytes] = []
        self._frames: list[Frame] = []
        self._size = 0

    def __str__(self) -> str:
        return f"session {self.number} (pid {self.pid}, {self.program})"

    @property
    def busy(self) -> bool:
        """Whether it runs something, or has it before it."""
        return bool(self.debts) or any(subscription.untaken for subscription in self.subscriptions.values())

    def say(self, kind: int, number: int = 0, value: int = 0, tag: bytes = NO_TAG, name: bytes = b"") -> None:
        """Send a record without a payload."""
        self.emit(Record(kind, number, value=value, tag=tag, name=name).encode())

    def emit(self, head: bytes, content: bytes = b"", frame: Frame | None = None, name: bytes = b"") -> None:
        """Send one record, with the next batch: at the end of the turn, or when it is long enough."""
        out = self._out
        if self.gone:
            return
        if not out:
            self._due.add(self)
        out += (head, content, name) if name else (head, content)
        self._size += len(content)
        if frame is not None:
            self._frames.append(frame)
            self._size += len(frame)
        if self._size >= FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        """Send what was emitted, and tell what left the queues if that is much.

        When its connection is gone, what it had sent may not have been read yet: its end is told when that is done,
        and what was to be sent meanwhile stays `unsent`.
        """
        if self.account.due:
            self._out += self.account.report()
        if not self._out or self.gone:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._size = 0
        if self._send([data, *self._frames]):
            self.unsent.clear()
        self._frames.clear()

    def accounted(self) -> None:
        """Something was added to its account."""
        if self.account.due and not self.gone:
            self._due.add(self)

    def kept(self, message: Message) -> None:
        self.waiting += 1
        self._tally.held += message.size

    def accepted(self, message: Message) -> None:
        self.waiting -= 1
        self._tally.held -= message.size
        self.account.add(message.serial, message.size)
        self.accounted()

    def hush(self, hushed: bool) -> None:
        """Ask it to send nothing new because the receiver leaves, or to go on until it has answered."""
        if hushed != self.hushed:
            self.hushed, self.quiet = hushed, False
            self._hushes += 1
            self.say(header.LEAVING, self._hushes, value=hushed)

    def confirm(self, hush: int) -> None:
        """It has heard that one, and what it sends from now on it sends knowing. An old confirmation counts not."""
        self.quiet = self.hushed and hush == self._hushes

    def undeliverable(self, message: Message, reason: str) -> None:
        self.returned(message.content, message.frame, reason.encode())

    def returned(self, content: bytes, frame: Frame | None, reason: bytes) -> None:
        """A message of it comes back."""
        reason = reason[:_LONGEST_REASON]
        self.emit(PACK_HOP(header.UNDELIVERABLE, len(reason), 0), content, frame, reason)

    def worker_lost(self, message: Message) -> None:
        self.say(header.LOST, tag=message.tag)
