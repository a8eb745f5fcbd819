"""Who serves what: announces the subscriptions of this machine, and keeps those of the peers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from rpclib_zmq import header
from rpclib_zmq.header import INBOX, Header, is_name, read_json
from rpclib_zmq.receiver.link import Peer, Remote
from rpclib_zmq.receiver.place import Destination, Shared
from rpclib_zmq.receiver.router import Router

_SHARE = 100
"""Messages that may be in flight to one subscription of a peer."""
_CONSUMERS = 1000
"""Most subscriptions of one name at one peer that count one by one."""
_NAMES = 10_000
"""Names a peer may announce."""


class Topics:
    """The subscriptions of all machines.

    A new peer gets a snapshot, then every change, each with a growing version. A subscription is in effect when all
    peers have confirmed the version that contains it.
    """

    def __init__(self, router: Router, peers: dict[str, Peer]) -> None:
        self._router = router
        self._peers = peers
        self._dirty: set[bytes] = set()
        self._version = 0
        self._unconfirmed: list[tuple[int, Callable[[], object]]] = []
        router.changed = self._changed
        router.announced = self._announced

    def send_snapshot(self, peer: Peer) -> None:
        """Send a new peer all subscriptions of this machine."""
        self._send(peer, list(self._router.destinations), snapshot=True)

    def send_changes(self) -> None:
        """Send every peer the changes since the last call."""
        if self._dirty:
            names, self._dirty = self._dirty, set()
            self._version += 1
            for peer in self._peers.values():
                self._send(peer, names, snapshot=False)

    def withdraw(self) -> None:
        """Tell every peer that this machine serves nothing any more, and announce no further changes."""
        self._version += 1
        for peer in self._peers.values():
            self._send(peer, (), snapshot=True)
        self._router.changed = lambda destination: None

    def _changed(self, destination: Destination) -> None:
        if destination.name[0] != INBOX:
            self._dirty.add(destination.name)

    def _announced(self, destination: Destination, then: Callable[[], object]) -> None:
        """Call ``then`` when every peer knows who serves the destination."""
        if destination.name[0] == INBOX or not self._peers:
            then()
            return
        self.send_changes()
        self._unconfirmed.append((self._version, then))
        self.confirm()

    def confirm(self) -> None:
        """Run the callbacks of the versions that all peers have confirmed."""
        seen = min((peer.seen for peer in self._peers.values()), default=self._version)
        done = [then for version, then in self._unconfirmed if version <= seen]
        self._unconfirmed = [(version, then) for version, then in self._unconfirmed if version > seen]
        for then in done:
            then()

    def _send(self, peer: Peer, names: Iterable[bytes], *, snapshot: bool) -> None:
        counts = {}
        for name in names:
            destination = self._router.destinations.get(name)
            consumers = [consumer for consumer in destination.consumers if consumer.local] if destination else []
            if name[0] != INBOX and (consumers or not snapshot):
                counts[name.decode()] = len(consumers)
        head = Header(header.TOPICS, number=snapshot, value=self._version)
        peer.transmit(head.encode(), json.dumps(counts).encode())

    def on_topics(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        """A peer sent its subscriptions: a snapshot, or changes."""
        counts = read_json(payload)
        names = {name.encode(): count for name, count in counts.items() if isinstance(count, int)}
        if head.number:
            for name in peer.remotes.keys() - names.keys():
                names[name] = 0
        for name, count in names.items():
            if is_name(name) and name[0] != INBOX and (name in peer.remotes or len(peer.remotes) < _NAMES):
                self._set(peer, name, count, now)
        peer.transmit(Header(header.SEEN, value=head.value).encode())

    def _set(self, peer: Peer, name: bytes, count: int, now: float) -> None:
        """Set the number of subscriptions of a name at a peer. A message to all is sent once for all of them."""
        remotes = peer.remotes.pop(name, [])
        if count > 0:
            peer.remotes[name] = remotes
            destination = self._router.join(name)
            wanted = min(count, _CONSUMERS) if isinstance(destination, Shared) else 1
            while len(remotes) < wanted:
                remote = Remote(peer, destination, _SHARE)
                remotes.append(remote)
                destination.add(remote)
                destination.serve(remote, now)
            if not isinstance(destination, Shared):
                remotes[0].count = count
        while len(remotes) > max(count, 0):
            remote = remotes.pop()
            self._router.leave(remote.destination, remote, (), now)

    def on_seen(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        """A peer confirmed a version."""
        peer.seen = head.value
        self.confirm()
