"""The mesh: links to other receivers, who serves what there, and messages that come and go that way."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from rpclib_zmq import header
from rpclib_zmq.header import PROTOCOL, Header, read_json, stamp
from rpclib_zmq.receiver.link import Link, Remote
from rpclib_zmq.receiver.message import Message
from rpclib_zmq.receiver.network import Dial, Network
from rpclib_zmq.receiver.place import Shared
from rpclib_zmq.receiver.router import NOBODY, Router
from rpclib_zmq.receiver.sockets import send
from rpclib_zmq.receiver.topics import Topics
from rpclib_zmq.records import LARGE, PACK_CONTENT

log = logging.getLogger("rpclib_zmq")

_DEAD_AFTER = 3.0
"""Seconds of silence that end a link whose connection looks alive."""
_INBOXES = 1000
"""Replies that may be under way to one peer."""


class Mesh:
    """All links of one receiver.

    There is one link to each peer. The first stays, because replacing it would lose what is under way there; of two
    made at the same time that of the smaller node. A peer learns this machine's subscriptions as a snapshot and
    then as changes, and confirms each.
    """

    def __init__(self, router: Router, network: Network) -> None:
        self.links: dict[str, Link] = {}
        self._router = router
        self._network = network
        self._by_peer: dict[tuple[bool, bytes], Link] = {}
        self._inboxes: dict[str, Shared] = {}
        self._topics = Topics(router, self.links)
        router.elsewhere = self._to_inbox
        self._handlers: dict[int, Callable[[Link, Header, bytes, float], None]] = {
            header.TOPICS: self._topics.told,
            header.SEEN: self._topics.seen,
            header.PASS: self._passed,
            header.ARRIVED: self._arrived,
            header.RETURNED: self._returned,
            header.BEREFT: self._bereft,
            header.PING: lambda link, head, payload, now: None,
        }

    def receive(self, inbound: bool, peer: bytes, data: bytes, payload: bytes, now: float) -> None:
        """Act on one message from another receiver."""
        head = header.decode(data)
        if head is None:
            return
        link = self._by_peer.get((inbound, peer))
        if head.kind == header.LINK and inbound:
            self._greeted(peer, read_json(payload), now)
        elif head.kind == header.LINKED and not inbound:
            self._answered(peer, read_json(payload), now)
        elif link is None:
            if inbound and head.kind != header.PING:
                self._refuse(peer, "there is no link")
        elif (handler := self._handlers.get(head.kind)) is not None:
            link.heard = now
            handler(link, head, payload, now)

    def connection(self, dial: Dial, usable: bool) -> None:
        """A connection this receiver made was established, or lost."""
        if usable:
            send(self._network.outbound, dial.peer, header.greeting(header.LINK), self._greeting())
            return
        if (link := self._by_peer.get((False, dial.peer))) is not None:
            self._drop(link, "the connection was lost")
        if dial.state == "connecting":  # zmq's own second attempt would report another address
            self._network.hang_up(dial, 0.1)

    def forget(self, address: str) -> None:
        """A machine was taken out: end the link that was made to it."""
        dial = self._network.dials.get(address)
        if dial is not None:
            self.connection(dial, False)
            self._network.forget(address)

    def tick(self, now: float) -> None:
        """Heartbeats, silence, and connections to make again."""
        for link in list(self.links.values()):
            if link.gone:
                self._drop(link, "its connection is gone")
            elif now - link.heard > _DEAD_AFTER:
                self._drop(link, f"it has been silent for {now - link.heard:.1f} s")
            else:
                link.transmit(Header(header.PING).encode())
        for dial in self._network.dials.values():
            if dial.state == "spare" and dial.node not in self.links:
                self.connection(dial, True)
        for place in self._inboxes.values():
            place.expire(now)
        self._network.tick(now)

    def settle(self) -> None:
        """After a batch: tell the peers what changed and what arrived."""
        self._topics.tell_changes()
        for link in list(self.links.values()):
            link.flush()
            if link.gone:
                self._drop(link, "its connection is gone")

    def withdraw(self) -> None:
        """This receiver is leaving: the peers shall send no new work."""
        self._topics.withdraw()

    def busy(self) -> bool:
        """Whether sessions here wait for answers from elsewhere."""
        return any(link.debts for link in self.links.values())

    def status(self) -> dict[str, Any]:
        return {
            "links": [{"node": link.node, "names": len(link.remotes)} for link in self.links.values()],
            "dials": {dial.address: dial.state for dial in self._network.dials.values()},
        }

    # Greetings.

    def _greeting(self) -> bytes:
        return json.dumps({"protocol": PROTOCOL, "node": self._router.node}).encode()

    def _refuse(self, peer: bytes, reason: str) -> None:
        refusal = {"protocol": PROTOCOL, "node": self._router.node, "refused": reason}
        send(self._network.inbound, peer, header.greeting(header.LINKED), json.dumps(refusal).encode())

    def _greeted(self, peer: bytes, greeting: dict[str, Any], now: float) -> None:
        node = str(greeting.get("node"))
        existing = self.links.get(node)
        if greeting.get("protocol") != PROTOCOL or not node:
            self._refuse(peer, f"this receiver speaks protocol {PROTOCOL}")
        elif node == self._router.node:
            self._refuse(peer, "itself")
        elif existing is not None and existing.dialled:
            self._refuse(peer, "spare")
        else:
            send(self._network.inbound, peer, header.greeting(header.LINKED), self._greeting())
            self._join(Link(node, self._network.inbound, peer, False, self._router.tally), now)

    def _answered(self, peer: bytes, answer: dict[str, Any], now: float) -> None:
        dial = self._network.by_peer.get(peer)
        if dial is None:
            return
        node, refused = str(answer.get("node")), answer.get("refused")
        dial.node = node
        existing = self.links.get(node)
        if refused == "there is no link":
            if existing is not None and existing.peer == peer:
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
            self._join(Link(node, self._network.outbound, peer, True, self._router.tally), now)

    def _join(self, link: Link, now: float) -> None:
        if (existing := self.links.get(link.node)) is not None:
            self._drop(existing, "another connection took its place")
        log.info("%s began", link)
        link.heard = now
        self.links[link.node] = link
        self._by_peer[not link.dialled, link.peer] = link
        inbox = self._inboxes[link.node] = Shared(f"I{link.node}".encode(), self._router.tally)
        remote = Remote(link, inbox, _INBOXES)
        inbox.add(remote)
        inbox.serve(remote, now)
        self._topics.tell_all(link)

    def _drop(self, link: Link, reason: str) -> None:
        """End a link. What is under way there is lost; what waits for it goes elsewhere or back."""
        log.warning("%s ended: %s", link, reason)
        link.gone = True
        del self.links[link.node]
        self._by_peer.pop((not link.dialled, link.peer), None)
        inbox = self._inboxes.pop(link.node)
        for message in [message for queue in inbox.queues() for message in queue]:
            self._router.give_back(message, "the machine of its inbox is gone")
        for remotes in link.remotes.values():
            for remote in remotes:
                self._router.leave(remote.place, remote, (), link.heard)
        for message in link.abandoned():
            self._router.lose(message)
        dial = self._network.by_peer.get(link.peer) if link.dialled else None
        if dial is not None and dial.state == "linked":  # drop what zmq would send when it connects again
            dial.state = "connecting"
            self._network.hang_up(dial, 0.1)
        self._topics.confirm()

    # Messages.

    def _to_inbox(self, message: Message, now: float) -> bool:
        """Pass a reply on to the machine of its inbox."""
        inbox = self._inboxes.get(message.name[1:].partition(b".")[0].decode("ascii", "replace"))
        return inbox is not None and message.sender.local and inbox.put(message, now)

    def _passed(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        content, frame = _content(head, payload, now)
        message = Message(link, head.number, head.value, head.tag, head.name, content, frame, len(payload))
        self._router.accept(message, link.debts, now)
        if not message.holds:
            link.settled(message.serial)

    def _arrived(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        for remote in link.arrived(payload):
            remote.place.serve(remote, now)

    def _returned(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        """A message reached nobody there: try elsewhere, if this is where it came from."""
        message, remote = link.came_back(head.value)
        link.debts.settle(head.tag)
        if message is None:
            session = self._router.sessions.get(head.number)
            if session is not None:
                session.returned(*_content(head, payload, now), head.name)
            return
        place = self._router.places.get(message.name)
        if isinstance(place, Shared) and place.takers and not message.returned:
            message.returned = True  # once is a race between machines; twice would be a circle
            place.put_back([message], now)
        else:
            self._router.give_back(message, NOBODY)
        if remote is not None:
            remote.place.serve(remote, now)

    def _bereft(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        """The worker there that had a message is gone."""
        link.debts.settle(head.tag)
        session = self._router.sessions.get(head.number)
        if session is not None:
            session.say(header.LOST, tag=head.tag)


def _content(head: Header, payload: bytes, now: float) -> tuple[bytes, bytes | None]:
    """What came from a peer as sessions get it: the content of a record, and the payload where it is large."""
    content = PACK_CONTENT(len(payload), head.ttl, head.waited, stamp(now), head.tag)
    return (content + payload, None) if len(payload) < LARGE else (content, payload)
