"""Sessions: connections of programs to the receiver, and their subscriptions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import DELIVER, NO_TAG, ONE, REDELIVER
from rpclib_zmq.protocol.records import FLUSH_AT, PACK_HOP, Record
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver.account import Account
from rpclib_zmq.receiver.limits import PREFETCH, UNTAKEN_BYTES
from rpclib_zmq.receiver.message import Consumer, Message, Sender, Stats
from rpclib_zmq.receiver.unanswered import Unanswered

if TYPE_CHECKING:
    from rpclib_zmq.receiver.destination import Destination

_LONGEST_REASON = 1000


class Subscription(Consumer):
    """One subscription of one session, with the messages delivered and not taken."""

    local = True

    def __init__(self, session: Session, number: int, prefetch: int, destination: Destination) -> None:
        self.session = session
        self.number = number
        self.destination = destination
        self.prefetch = min(prefetch, PREFETCH) or PREFETCH
        self.messages = 0
        """Number of messages delivered and not taken."""
        self.bytes = 0
        """Size of the messages delivered and not taken."""
        self.untaken: deque[Message] = deque()
        """Untaken messages that another consumer could take."""
        self._one = destination.name[0] == ONE
        self._deliver = PACK_HOP(DELIVER, 0, number)
        self._redeliver = PACK_HOP(REDELIVER, 0, number)

    @property
    def load(self) -> int:
        return max(self.messages, self.session.unanswered.load)

    @property
    def room(self) -> bool:
        return self.messages < self.prefetch and self.bytes < UNTAKEN_BYTES and not self.stalled

    def deliver(self, message: Message, now: float) -> bool:
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
            session.unanswered.add(message)
        return True

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        if self.session.gone:
            return False
        self.session.emit(self._deliver, content, frame)
        self.messages += 1
        self.bytes += size
        return True

    def took(self, messages: int, size: int) -> bool:
        """Account for the oldest ``messages`` of ``size`` bytes, which the session took.

        Returns whether messages may wait for the room: only when there was none before.
        """
        full = not self.room
        self.messages = max(0, self.messages - messages)
        self.bytes = max(0, self.bytes - size)
        untaken = self.untaken
        for _ in range(min(messages, len(untaken))):
            untaken.popleft()
        return full


class Session(Sender):
    """One connection of one process, from its HELLO to its BYE or its loss."""

    local = True

    def __init__(
        self,
        send: Callable[[list[Frame]], bool],
        number: int,
        pid: int,
        program: str,
        stats: Stats,
        due: set[Session],
    ) -> None:
        self.number = number
        self.pid = pid
        self.program = program
        self.subscriptions: dict[int, Subscription] = {}
        self.unanswered = Unanswered()
        self.heard = 0.0
        """Time of the last batch from the session."""
        self.stalled = False
        self.gone = False
        """Whether the session has ended."""
        self.unsent: list[Message] = []
        """Messages delivered that have not been written to the connection."""
        self.waiting = 0
        """Number of messages from the session that wait in queues."""
        self.account = Account()
        self.sending_paused = False
        """Whether the session was asked to send nothing new."""
        self.quiet = False
        """Whether the session has confirmed the pause."""
        self.unwatch: Callable[[], None] | None = None
        """Ends the watch of the process; None when the process is not watched."""
        self._pauses = 0
        self._send = send
        self._stats = stats
        self._due = due
        self._out: list[bytes] = []
        self._frames: list[Frame] = []
        self._size = 0

    def __str__(self) -> str:
        return f"session {self.number} (pid {self.pid}, {self.program})"

    @property
    def busy(self) -> bool:
        """Whether the session has untaken or unanswered messages."""
        return bool(self.unanswered) or any(subscription.untaken for subscription in self.subscriptions.values())

    def send_record(
        self, kind: int, number: int = 0, value: int = 0, tag: bytes = NO_TAG, name: bytes = b""
    ) -> None:
        """Send a control record."""
        self.emit(Record(kind, number, value=value, tag=tag, name=name).encode())

    def emit(self, head: bytes, content: bytes = b"", frame: Frame | None = None, name: bytes = b"") -> None:
        """Add one record to the next batch, which is sent at the end of the turn, or when it is long enough."""
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
        """Send the batch, with the report of messages that left the queues if there is one.

        When the connection is gone, the session may still have batches to be read. It ends after them; messages
        delivered until then stay `unsent`.
        """
        if self.account.due:
            self._out += self.account.take_records()
        if not self._out or self.gone:
            return
        data = b"".join(self._out)
        self._out.clear()
        self._size = 0
        if self._send([data, *self._frames]):
            self.unsent.clear()
        self._frames.clear()

    def schedule_report(self) -> None:
        """Send the report with the next flush, if there is one."""
        if self.account.due and not self.gone:
            self._due.add(self)

    def kept(self, message: Message) -> None:
        self.waiting += 1
        self._stats.held += message.size

    def accepted(self, message: Message) -> None:
        self.waiting -= 1
        self._stats.held -= message.size
        self.account.add(message.serial, message.size)
        self.schedule_report()

    def pause_sending(self, paused: bool) -> None:
        """Ask the session to send nothing new, because the receiver leaves, or to resume until it has answered."""
        if paused != self.sending_paused:
            self.sending_paused, self.quiet = paused, False
            self._pauses += 1
            self.send_record(header.LEAVING, self._pauses, value=paused)

    def confirm(self, number: int) -> None:
        """The session confirms a request to pause or resume. Ignores a confirmation of an earlier request."""
        self.quiet = self.sending_paused and number == self._pauses

    def undeliverable(self, message: Message, reason: str) -> None:
        self.returned(message.content, message.frame, reason.encode())

    def returned(self, content: bytes, frame: Frame | None, reason: bytes) -> None:
        """Return a message to the session."""
        reason = reason[:_LONGEST_REASON]
        self.emit(PACK_HOP(header.UNDELIVERABLE, len(reason), 0), content, frame, reason)

    def worker_lost(self, message: Message) -> None:
        self.send_record(header.LOST, tag=message.tag)
