"""A link: another receiver, as this one sees it, and the subscriptions there."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import zmq

from rpclib_zmq import header
from rpclib_zmq.header import NO_TAG, ONE, PASS, Header
from rpclib_zmq.receiver.debts import Debts
from rpclib_zmq.receiver.message import Message, Sender, Taker, Tally
from rpclib_zmq.receiver.sockets import send
from rpclib_zmq.records import clock
from rpclib_zmq.zmtp import Frame

if TYPE_CHECKING:
    from rpclib_zmq.receiver.place import Place


class Remote(Taker):
    """One subscription at a peer, or all of its inboxes: takes as many messages as may be under way there."""

    local = False

    def __init__(self, link: Link, place: Place, window: int, count: int = 1) -> None:
        self.link = link
        self.place = place
        self.count = count
        self.under_way = 0
        self._window = window
        self._answers = place.name[0] == ONE

    @property
    def load(self) -> int:
        return max(self.under_way, self.busy)

    @property
    def room(self) -> bool:
        return self.under_way < self._window and not self.link.gone

    def hand(self, message: Message, now: float) -> bool:
        if not self.link.pass_on(message, self, now):
            return False
        self.under_way += 1
        if self._answers and message.tag != NO_TAG:
            message.taker = self
            self.busy += 1
            self.link.debts.add(message)
        return True


class Link(Sender):
    """One connection to one peer, from its greeting to its loss."""

    local = False

    def __init__(self, node: str, socket: zmq.Socket[bytes], peer: bytes, dialled: bool, tally: Tally) -> None:
        self.node = node
        self.socket = socket
        self.peer = peer
        self.dialled = dialled
        """This receiver made the connection, not the other."""
        self.debts = Debts()
        self.remotes: dict[bytes, list[Remote]] = {}
        self.heard = 0.0
        self.gone = False
        self.told = 0
        """The version of this machine's topics that was sent last."""
        self.seen = 0
        """The one that the peer has confirmed."""
        self._under_way: dict[int, tuple[Message, Remote]] = {}
        self._serial = 0
        self._arrived: list[int] = []
        self._tally = tally

    def __str__(self) -> str:
        return f"link to receiver {self.node}"

    def transmit(self, head: bytes, payload: Frame = b"") -> bool:
        """Send. False, and marked as gone, when the connection no longer exists."""
        if not self.gone and not send(self.socket, self.peer, head, payload):
            self.gone = True
        return not self.gone

    def pass_on(self, message: Message, remote: Remote, now: float) -> bool:
        """Send a message to a subscription there. False: the link is gone."""
        ttl, waited = clock(message.content, now)
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        head = Header(PASS, ttl, waited, message.origin, self._serial, message.tag, message.name)
        if not self.transmit(head.encode(), message.payload):
            return False
        self._under_way[self._serial] = (message, remote)
        return True

    def arrived(self, serials: bytes) -> set[Remote]:
        """These left the peer's queues. Returns the takers that may have room now."""
        remotes = set()
        for (serial,) in struct.iter_unpack("<I", serials[: len(serials) // 4 * 4]):
            if (remote := self.came_back(serial)[1]) is not None:
                remotes.add(remote)
        return remotes

    def came_back(self, serial: int) -> tuple[Message | None, Remote | None]:
        """The message under way with that serial is so no more."""
        message, remote = self._under_way.pop(serial, (None, None))
        if remote is not None:
            remote.under_way -= 1
        return message, remote

    def abandoned(self) -> list[Message]:
        """Messages to one server whose fate is unknown because the link is lost."""
        lost = self.debts.drain()
        lost += [
            message for message, _ in self._under_way.values() if message.name[0] == ONE and message.tag == NO_TAG
        ]
        self._under_way.clear()
        return lost

    def flush(self) -> None:
        """Tell the peer what left the queues here since the last time."""
        if self._arrived:
            self.transmit(Header(header.ARRIVED).encode(), struct.pack(f"<{len(self._arrived)}I", *self._arrived))
            self._arrived.clear()

    def kept(self, message: Message) -> None:
        self._tally.held += message.size

    def accepted(self, message: Message) -> None:
        self._tally.held -= message.size
        self.settled(message.serial)

    def settled(self, serial: int) -> None:
        """The message does not wait here."""
        self._arrived.append(serial)

    def undeliverable(self, message: Message, reason: str) -> None:
        serial = message.serial if message.sender is self else 0
        head = Header(header.RETURNED, number=message.origin, value=serial, tag=message.tag, name=reason.encode())
        self.transmit(head.encode(), message.payload)

    def worker_lost(self, message: Message) -> None:
        self.transmit(Header(header.BEREFT, number=message.origin, tag=message.tag).encode())
