"""The peers of a receiver, and what it announces to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import INBOX, Header
from rpclib_zmq.receiver.destination import Destination, Shared
from rpclib_zmq.receiver.message import Message
from rpclib_zmq.receiver.network.peer import Peer


class Peers:
    """All peers by node, and the subscriptions of this machine that were announced to them.

    A new peer gets a snapshot, then every change, each with a growing version. A subscription is in effect when all
    peers have confirmed the version that contains it.
    """

    def __init__(self) -> None:
        self.by_node: dict[str, Peer] = {}
        self.inboxes: dict[str, Shared] = {}
        """Replies to the inboxes of each peer, by node."""
        self._served: dict[bytes, Destination] = {}
        """Destinations with consumers on this machine."""
        self._dirty: set[bytes] = set()
        self._version = 0
        self._unconfirmed: list[tuple[int, Callable[[], object]]] = []
        self._withdrawn = False

    def changed(self, destination: Destination) -> None:
        """The consumers of a destination on this machine changed."""
        name = destination.name
        if name[0] == INBOX:
            return
        if any(consumer.local for consumer in destination.consumers):
            self._served[name] = destination
        else:
            self._served.pop(name, None)
        if not self._withdrawn:
            self._dirty.add(name)

    def announce(self, destination: Destination, then: Callable[[], object]) -> None:
        """Call ``then`` when every peer knows who serves the destination."""
        if destination.name[0] == INBOX or not self.by_node:
            then()
            return
        self.send_changes()
        self._unconfirmed.append((self._version, then))
        self.confirm()

    def forward(self, message: Message, now: float) -> bool:
        """Forward a reply to the machine of its inbox. False: no peer is that machine, or a peer sent the reply."""
        inbox = self.inboxes.get(message.name[1:].partition(b".")[0].decode("ascii", "replace"))
        return inbox is not None and message.sender.local and inbox.put(message, now)

    def send_snapshot(self, peer: Peer) -> None:
        """Send a new peer all subscriptions of this machine."""
        self._send(peer, self._served, snapshot=True)

    def send_changes(self) -> None:
        """Send every peer the changes since the last call."""
        if self._dirty:
            names, self._dirty = self._dirty, set()
            self._version += 1
            for peer in self.by_node.values():
                self._send(peer, names, snapshot=False)

    def withdraw(self) -> None:
        """Tell every peer that this machine serves nothing any more, and announce no further changes."""
        self._version += 1
        for peer in self.by_node.values():
            self._send(peer, (), snapshot=True)
        self._withdrawn = True

    def confirm(self) -> None:
        """Run the callbacks of the versions that all peers have confirmed."""
        seen = min((peer.seen for peer in self.by_node.values()), default=self._version)
        done = [then for version, then in self._unconfirmed if version <= seen]
        self._unconfirmed = [(version, then) for version, then in self._unconfirmed if version > seen]
        for then in done:
            then()

    def _send(self, peer: Peer, names: Iterable[bytes], *, snapshot: bool) -> None:
        counts = {}
        for name in names:
            destination = self._served.get(name)
            consumers = [consumer for consumer in destination.consumers if consumer.local] if destination else []
            counts[name.decode()] = len(consumers)
        head = Header(header.TOPICS, number=snapshot, value=self._version)
        peer.transmit(head.encode(), json.dumps(counts).encode())
