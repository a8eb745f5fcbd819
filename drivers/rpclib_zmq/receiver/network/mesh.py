"""The mesh: the other receivers, what they serve, and the messages exchanged with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import PROTOCOL, Header, read_json, stamp
from rpclib_zmq.protocol.records import LARGE, PACK_CONTENT
from rpclib_zmq.receiver.destination import Shared
from rpclib_zmq.receiver.message import Message
from rpclib_zmq.receiver.network.network import Dial, Network
from rpclib_zmq.receiver.network.peer import Peer, Remote
from rpclib_zmq.receiver.network.peers import Peers
from rpclib_zmq.receiver.network.sockets import send
from rpclib_zmq.receiver.network.topics import Topics
from rpclib_zmq.receiver.router import NOBODY, Router

log = logging.getLogger("rpclib_zmq")

_DEAD_AFTER = 3.0
"""Seconds of silence after which a peer is dropped although its connection looks alive."""
_INBOXES = 1000
"""Replies that may be in flight to one peer."""


class Mesh:
    """All peers of one receiver, with one link to each.

    The first link to a peer stays, because replacing it would lose the messages in flight. Of two links made at the
    same time, the one made by the smaller node stays. A peer gets the subscriptions of this machine as a snapshot,
    then every change, and confirms each.
    """

    def __init__(self, router: Router, peers: Peers, network: Network) -> None:
        self._peers = peers
        self._router = router
        self._network = network
        self._by_routing_id: dict[tuple[bool, bytes], Peer] = {}
        topics = Topics(router, peers)
        self._handlers: dict[int, Callable[[Peer, Header, bytes, float], None]] = {
            header.TOPICS: topics.on_topics,
            header.SEEN: topics.on_seen,
            header.PASS: self._on_pass,
            header.ARRIVED: self._on_arrived,
            header.RETURNED: self._on_returned,
            header.WORKER_LOST: self._on_worker_lost,
            header.PING: _ignore,
        }

    def receive(self, inbound: bool, routing_id: bytes, data: bytes, payload: bytes, now: float) -> None:
        """Act on one message from another receiver."""
        head = header.decode(data)
        if head is None:
            return
        peer = self._by_routing_id.get((inbound, routing_id))
        if head.kind == header.LINK and inbound:
            self._on_link(routing_id, read_json(payload), now)
        elif head.kind == header.LINKED and not inbound:
            self._on_linked(routing_id, read_json(payload), now)
        elif peer is None:
            if inbound and head.kind != header.PING:
                self._refuse(routing_id, "there is no link")
        elif (handler := self._handlers.get(head.kind)) is not None:
            peer.heard = now
            handler(peer, head, payload, now)

    def connection(self, dial: Dial, usable: bool) -> None:
        """Handle an outbound connection that was established (``usable``) or lost."""
        if usable:
            send(self._network.outbound, dial.routing_id, header.greeting(header.LINK), self._greeting())
            return
        if (peer := self._by_routing_id.get((False, dial.routing_id))) is not None:
            self._drop(peer, "the connection was lost")
        if dial.state == "connecting":  # the retry by zmq would report another address
            self._network.hang_up(dial, 0.1)

    def forget(self, address: str) -> None:
        """Disconnect from an address that the matchmaker no longer lists."""
        dial = self._network.dials.get(address)
        if dial is not None:
            self.connection(dial, False)
            self._network.forget(address)

    def tick(self, now: float) -> None:
        """Send heartbeats, drop silent peers, reconnect, and expire waiting replies."""
        for peer in list(self._peers.by_node.values()):
            if peer.gone:
                self._drop(peer, "its connection is gone")
            elif now - peer.heard > _DEAD_AFTER:
                self._drop(peer, f"it has been silent for {now - peer.heard:.1f} s")
            else:
                peer.transmit(Header(header.PING).encode())
        for dial in self._network.dials.values():
            if dial.state == "spare" and dial.node not in self._peers.by_node:
                self.connection(dial, True)
        for destination in self._peers.inboxes.values():
            destination.expire(now)
        self._network.tick(now)

    def flush(self) -> None:
        """After a batch: send the peers the changes and the confirmations of arrivals."""
        self._peers.send_changes()
        for peer in list(self._peers.by_node.values()):
            peer.flush()
            if peer.gone:
                self._drop(peer, "its connection is gone")

    def withdraw(self) -> None:
        """Ask the peers to send no new work, because this receiver is leaving."""
        self._peers.withdraw()

    def busy(self) -> bool:
        """Whether sessions of this machine wait for answers from peers."""
        return any(peer.unanswered for peer in self._peers.by_node.values())

    def status(self) -> dict[str, Any]:
        return {
            "links": [{"node": peer.node, "names": len(peer.remotes)} for peer in self._peers.by_node.values()],
            "dials": {dial.address: dial.state for dial in self._network.dials.values()},
        }

    # Greetings.

    def _greeting(self) -> bytes:
        return json.dumps({"protocol": PROTOCOL, "node": self._router.node}).encode()

    def _refuse(self, routing_id: bytes, reason: str) -> None:
        refusal = {"protocol": PROTOCOL, "node": self._router.node, "refused": reason}
        send(self._network.inbound, routing_id, header.greeting(header.LINKED), json.dumps(refusal).encode())

    def _on_link(self, routing_id: bytes, greeting: dict[str, Any], now: float) -> None:
        node = str(greeting.get("node"))
        existing = self._peers.by_node.get(node)
        if greeting.get("protocol") != PROTOCOL or not node:
            self._refuse(routing_id, f"this receiver speaks protocol {PROTOCOL}")
        elif node == self._router.node:
            self._refuse(routing_id, "itself")
        elif existing is not None and existing.dialled:
            self._refuse(routing_id, "spare")
        else:
            send(self._network.inbound, routing_id, header.greeting(header.LINKED), self._greeting())
            self._join(Peer(node, self._network.inbound, routing_id, False, self._router.stats), now)

    def _on_linked(self, routing_id: bytes, answer: dict[str, Any], now: float) -> None:
        dial = self._network.by_routing_id.get(routing_id)
        if dial is None:
            return
        node, refused = str(answer.get("node")), answer.get("refused")
        dial.node = node
        existing = self._peers.by_node.get(node)
        if refused == "there is no link":
            if existing is not None and existing.routing_id == routing_id:
                self._drop(existing, "the peer has given it up")
            self.connection(dial, True)
        elif refused == "itself":
            self._network.hang_up(dial, 3600)
            dial.state = "itself"
        elif refused == "spare" or (existing is not None and not existing.dialled and node < self._router.node):
            dial.state = "spare"
        elif refused:
            log.error("no link to %s: %s", dial.address, refused)
            dial.state = "refused"
            self._network.hang_up(dial, 5)
        else:
            dial.state = "linked"
            self._join(Peer(node, self._network.outbound, routing_id, True, self._router.stats), now)

    def _join(self, peer: Peer, now: float) -> None:
        if (existing := self._peers.by_node.get(peer.node)) is not None:
            self._drop(existing, "another connection took its place")
        log.info("%s began", peer)
        peer.heard = now
        self._peers.by_node[peer.node] = peer
        self._by_routing_id[not peer.dialled, peer.routing_id] = peer
        inbox = self._peers.inboxes[peer.node] = Shared(f"I{peer.node}".encode(), self._router.stats)
        remote = Remote(peer, inbox, _INBOXES)
        inbox.add(remote)
        inbox.serve(remote, now)
        self._peers.send_snapshot(peer)

    def _drop(self, peer: Peer, reason: str) -> None:
        """End the link to a peer. Messages in flight are lost; waiting messages go to other consumers or back."""
        log.warning("%s ended: %s", peer, reason)
        peer.gone = True
        del self._peers.by_node[peer.node]
        self._by_routing_id.pop((not peer.dialled, peer.routing_id), None)
        inbox = self._peers.inboxes.pop(peer.node)
        for message in [message for queue in inbox.queues() for message in queue]:
            self._router.give_back(message, "the machine of its inbox is gone")
        for remotes in peer.remotes.values():
            for remote in remotes:
                self._router.leave(remote.destination, remote, (), peer.heard)
        for message in peer.lost_messages():
            self._router.lose(message)
        dial = self._network.by_routing_id.get(peer.routing_id) if peer.dialled else None
        if dial is not None and dial.state == "linked":  # discard what zmq would send after reconnecting
            dial.state = "connecting"
            self._network.hang_up(dial, 0.1)
        self._peers.confirm()

    # Messages.

    def _on_pass(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        content, frame = _content(head, payload, now)
        message = Message(peer, head.number, head.value, head.tag, head.name, content, frame, len(payload))
        self._router.accept(message, peer.unanswered, now)
        if not message.holds:
            peer.confirm_arrival(message.serial)

    def _on_arrived(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        for remote in peer.arrived(payload):
            remote.destination.serve(remote, now)

    def _on_returned(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        """A message reached no consumer at the peer: try another consumer if it came from this machine."""
        message, remote = peer.pop_under_way(head.value)
        peer.unanswered.remove(head.tag)
        if message is None:
            session = self._router.sessions.get(head.number)
            if session is not None:
                session.returned(*_content(head, payload, now), head.name)
            return
        destination = self._router.destinations.get(message.name)
        if isinstance(destination, Shared) and destination.consumers and not message.returned:
            message.returned = True  # one return is a race between machines, a second would be a loop
            destination.requeue([message], now)
        else:
            self._router.give_back(message, NOBODY)
        if remote is not None:
            remote.destination.serve(remote, now)

    def _on_worker_lost(self, peer: Peer, head: Header, payload: bytes, now: float) -> None:
        """A worker at the peer ended without answering a message."""
        peer.unanswered.remove(head.tag)
        session = self._router.sessions.get(head.number)
        if session is not None:
            session.send_record(header.LOST, tag=head.tag)


def _content(head: Header, payload: bytes, now: float) -> tuple[bytes, bytes | None]:
    """Content and frame, as sessions get them, of a message from a peer. The frame is None for a small payload."""
    content = PACK_CONTENT(len(payload), head.ttl, head.waited, stamp(now), head.tag)
    return (content + payload, None) if len(payload) < LARGE else (content, payload)


def _ignore(peer: Peer, head: Header, payload: bytes, now: float) -> None:
    """A PING needs no answer: the arrival of any message shows that the peer is alive."""
