"""Sessions: the processes of this machine, as the receiver sees them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from rpclib_zmq import header
from rpclib_zmq.header import DELIVER, MAGIC, NO_TAG, PACK, REDELIVER, Header, stamp
from rpclib_zmq.receiver.limits import OWED, PREFETCH, REPORTED, REPORTED_BYTES, UNTAKEN_BYTES
from rpclib_zmq.receiver.message import Message, Payload, Sender, Taker, Tally
from rpclib_zmq.receiver.sockets import send

if TYPE_CHECKING:
    from rpclib_zmq.receiver.place import Place


class Debts:
    """Tagged messages that were handed to one peer and have not been answered, oldest first."""

    def __init__(self) -> None:
        self._owed: dict[bytes, Message] = {}
        self.load = 0
        """Those that are not past their time."""

    def __len__(self) -> int:
        return len(self._owed)

    def add(self, message: Message, taker: Taker) -> None:
        """Remember, up to a bound: beyond it the oldest is forgotten."""
        if len(self._owed) >= OWED:
            self.settle(next(iter(self._owed)))
        message.taker = taker
        taker.busy += 1
        self.load += 1
        self._owed[message.tag] = message

    def settle(self, tag: bytes) -> Message | None:
        """It was answered, passed on, or not handed over after all. Returns what was owed for."""
        message = self._owed.pop(tag, None)
        if message is not None:
            self._unload(message)
        return message

    def forget_load(self, now: float) -> None:
        """A message past its time burdens nobody any more; its loss would still be told (it may be a stream)."""
        for message in self._owed.values():
            if message.expired(now):
                self._unload(message)

    def _unload(self, message: Message) -> None:
        if message.taker is not None:
            message.taker.busy -= 1
            message.taker = None
            self.load -= 1

    def drain(self) -> list[Message]:
        """Take out everything that is owed."""
        owed = list(self._owed.values())
        for message in owed:
            self.settle(message.tag)
        return owed


class Subscription(Taker):
    """One subscription of one session, with what it was handed and has not taken."""

    local = True

    def __init__(self, session: Session, number: int, prefetch: int, place: Place) -> None:
        self.session = session
        self.number = number
        self.place = place
        self.prefetch = min(prefetch, PREFETCH) or PREFETCH
        self.untaken: deque[Message] = deque()
        self.bytes = 0
        self._answers = place.name[0] == header.ONE

    @property
    def load(self) -> int:
        return max(len(self.untaken), self.session.debts.load)

    @property
    def room(self) -> bool:
        return len(self.untaken) < self.prefetch and self.bytes < UNTAKEN_BYTES and not self.stalled

    def hand(self, message: Message, now: float) -> bool:
        ttl, waited = message.clock(now)
        kind = REDELIVER if message.redelivered else DELIVER
        head = PACK(MAGIC, kind, ttl, waited, self.number, stamp(now), message.tag)
        if not self.session.transmit(head, message.payload):
            return False
        self.untaken.append(message)
        self.bytes += message.size
        if self._answers and message.tag != NO_TAG:
            self.session.debts.add(message, self)
        return True

    def took(self, count: int) -> None:
        """The session took the ``count`` oldest."""
        untaken = self.untaken
        for _ in range(min(count, len(untaken))):
            self.bytes -= untaken.popleft().size


class Session(Sender):
    """One connection of one process, from its HELLO to its BYE or its death."""

    local = True

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        peer: bytes,
        number: int,
        pid: int,
        program: str,
        tally: Tally,
        due: set[Session],
    ) -> None:
        self.peer = peer
        self.number = number
        self.pid = pid
        self.program = program
        self.subscriptions: dict[int, Subscription] = {}
        self.debts = Debts()
        self.heard = 0.0
        """When it last sent anything."""
        self.stalled = False
        self.gone = False
        """It cannot be reached any more; the router buries it after the current message."""
        self.waiting = 0
        """Messages of it that wait at its expense."""
        self.hushed = False
        """It was told that the receiver leaves."""
        self.quiet = False
        """It has confirmed that it sends nothing new."""
        self.hushes = 0
        """How often it was told to hush or to go on, so that an old confirmation is not taken for a new one."""
        self._socket = socket
        self._tally = tally
        self._due = due
        self._accepted: dict[int, tuple[int, int]] = {}
        """Messages and bytes that left the queues, by lane."""
        self._unreported = 0
        self._unreported_bytes = 0
        self.unwatch: Callable[[], None] | None = None
        """Ends the watch over its process, where there is one."""

    def __str__(self) -> str:
        return f"session {self.number} (pid {self.pid}, {self.program})"

    def transmit(self, head: bytes, payload: Payload = b"") -> bool:
        """Send. False, and marked as gone, when the connection no longer exists."""
        if self.gone:
            return False
        if send(self._socket, self.peer, head, payload):
            return True
        self.gone = True
        self._due.add(self)
        return False

    def accepted(self, message: Message) -> None:
        self.waiting -= 1
        self._tally.held -= message.size
        count, size = self._accepted.get(message.serial, (0, 0))
        self._accepted[message.serial] = count + 1, size + message.size
        self._unreported += 1
        self._unreported_bytes += message.size
        if self._unreported >= REPORTED or self._unreported_bytes >= REPORTED_BYTES:
            self._due.add(self)

    def flush(self) -> None:
        """Tell the session what left the queues since the last time."""
        for lane, (count, size) in self._accepted.items():
            self.transmit(Header(header.ACCEPTED, number=lane, value=count, ttl=size).encode())
        self._accepted.clear()
        self._unreported = self._unreported_bytes = 0

    def hush(self, hushed: bool) -> None:
        """Ask it to send nothing new because the receiver leaves, or to go on until it has answered."""
        if hushed != self.hushed:
            self.hushed, self.quiet = hushed, False
            self.hushes += 1
            self.transmit(Header(header.LEAVING, number=self.hushes, value=hushed).encode())

    def undeliverable(self, message: Message, reason: str) -> None:
        head = Header(header.UNDELIVERABLE, tag=message.tag, name=reason.encode())
        self.transmit(head.encode(), message.payload)

    def worker_lost(self, message: Message) -> None:
        self.transmit(Header(header.LOST, tag=message.tag).encode())
