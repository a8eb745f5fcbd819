"""A peer: another receiver, and its subscriptions."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import zmq

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import NO_TAG, ONE, PASS, Header
from rpclib_zmq.protocol.records import clock
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver.message import Consumer, Message, Sender, Stats
from rpclib_zmq.receiver.network.sockets import send
from rpclib_zmq.receiver.unanswered import Unanswered

if TYPE_CHECKING:
    from rpclib_zmq.receiver.destination import Destination


class Remote(Consumer):
    """One subscription at a peer, or all inboxes of a peer. Accepts ``window`` messages in flight."""

    local = False

    def __init__(self, peer: Peer, destination: Destination, window: int, count: int = 1) -> None:
        self.peer = peer
        self.destination = destination
        self.count = count
        self.under_way = 0
        self._window = window
        self._answers = destination.name[0] == ONE

    @property
    def load(self) -> int:
        return max(self.under_way, self.busy)

    @property
    def room(self) -> bool:
        return self.under_way < self._window and not self.peer.gone

    def deliver(self, message: Message, now: float) -> bool:
        if not self.peer.pass_on(message, self, now):
            return False
        self.under_way += 1
        if self._answers and message.tag != NO_TAG:
            message.consumer = self
            self.busy += 1
            self.peer.unanswered.add(message)
        return True


class Peer(Sender):
    """Another receiver, from the greeting on one connection to the loss of the connection."""

    local = False

    def __init__(
        self, node: str, socket: zmq.Socket[bytes], routing_id: bytes, dialled: bool, stats: Stats
    ) -> None:
        self.node = node
        self.socket = socket
        self.routing_id = routing_id
        self.dialled = dialled
        """Whether this receiver made the connection."""
        self.unanswered = Unanswered()
        self.remotes: dict[bytes, list[Remote]] = {}
        self.heard = 0.0
        self.gone = False
        self.seen = 0
        """The version of this machine's topics that the peer has confirmed."""
        self._under_way: dict[int, tuple[Message, Remote]] = {}
        self._serial = 0
        self._arrived: list[int] = []
        self._stats = stats

    def __str__(self) -> str:
        return f"link to receiver {self.node}"

    def transmit(self, head: bytes, payload: Frame = b"") -> bool:
        """Send one message. False, and `gone` is set, when the connection no longer exists."""
        if not self.gone and not send(self.socket, self.routing_id, head, payload):
            self.gone = True
        return not self.gone

    def pass_on(self, message: Message, remote: Remote, now: float) -> bool:
        """Send a message to a subscription of the peer. False: the peer is gone."""
        ttl, waited = clock(message.content, now)
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        head = Header(PASS, ttl, waited, message.origin, self._serial, message.tag, message.name)
        if not self.transmit(head.encode(), message.payload):
            return False
        self._under_way[self._serial] = (message, remote)
        return True

    def arrived(self, serials: bytes) -> set[Remote]:
        """Account for messages that left the queues of the peer. Returns the consumers that may have room now."""
        remotes = set()
        for (serial,) in struct.iter_unpack("<I", serials[: len(serials) // 4 * 4]):
            if (remote := self.pop_under_way(serial)[1]) is not None:
                remotes.add(remote)
        return remotes

    def pop_under_way(self, serial: int) -> tuple[Message | None, Remote | None]:
        """Remove and return the message in flight with that serial, and its consumer."""
        message, remote = self._under_way.pop(serial, (None, None))
        if remote is not None:
            remote.under_way -= 1
        return message, remote

    def lost_messages(self) -> list[Message]:
        """Take out the messages to one server whose fate is unknown because the connection is lost."""
        lost = self.unanswered.drain()
        lost += [
            message for message, _ in self._under_way.values() if message.name[0] == ONE and message.tag == NO_TAG
        ]
        self._under_way.clear()
        return lost

    def flush(self) -> None:
        """Report to the peer the messages that left the queues here since the last report."""
        if self._arrived:
            self.transmit(Header(header.ARRIVED).encode(), struct.pack(f"<{len(self._arrived)}I", *self._arrived))
            self._arrived.clear()

    def kept(self, message: Message) -> None:
        self._stats.held += message.size

    def accepted(self, message: Message) -> None:
        self._stats.held -= message.size
        self.confirm_arrival(message.serial)

    def confirm_arrival(self, serial: int) -> None:
        """Report, with the next flush, that the message does not wait in a queue here."""
        self._arrived.append(serial)

    def undeliverable(self, message: Message, reason: str) -> None:
        serial = message.serial if message.sender is self else 0
        head = Header(header.RETURNED, number=message.origin, value=serial, tag=message.tag, name=reason.encode())
        self.transmit(head.encode(), message.payload)

    def worker_lost(self, message: Message) -> None:
        self.transmit(Header(header.WORKER_LOST, number=message.origin, tag=message.tag).encode())
