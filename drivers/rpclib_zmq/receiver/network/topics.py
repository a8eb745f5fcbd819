"""The subscriptions of the peers."""

from __future__ import annotations

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import INBOX, Header, is_name, read_json
from rpclib_zmq.receiver.destination import Shared
from rpclib_zmq.receiver.network.peer import Peer, Remote
from rpclib_zmq.receiver.network.peers import Peers
from rpclib_zmq.receiver.router import Router

_SHARE = 100
"""Messages that may be in flight to one subscription of a peer."""
_CONSUMERS = 1000
"""Most subscriptions of one name at one peer that count one by one."""
_NAMES = 10_000
"""Names a peer may announce."""


class Topics:
    """Keeps the subscriptions of the peers as consumers of the router."""

    def __init__(self, router: Router, peers: Peers) -> None:
        self._router = router
        self._peers = peers

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
        self._peers.confirm()
