"""Who serves what: telling the peers about this machine, and keeping what they tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from rpclib_zmq import header
from rpclib_zmq.header import INBOX, Header, is_name, read_json
from rpclib_zmq.receiver.link import Link, Remote
from rpclib_zmq.receiver.place import Place, Shared
from rpclib_zmq.receiver.router import Router

_SHARE = 100
"""Messages that may be under way to one subscription of a peer."""
_TAKERS = 1000
"""Subscriptions of one name at one peer that are told apart."""
_NAMES = 10_000
"""Names a peer may announce."""


class Topics:
    """The subscriptions of all machines.

    A peer is told everything when its link begins, and then every change, under a growing version. A
    subscription is in effect when all peers have confirmed the version that has it.
    """

    def __init__(self, router: Router, links: dict[str, Link]) -> None:
        self._router = router
        self._links = links
        self._dirty: set[bytes] = set()
        self._version = 0
        self._unconfirmed: list[tuple[int, Callable[[], object]]] = []
        router.changed = self._changed
        router.announced = self._announced

    def tell_all(self, link: Link) -> None:
        """Tell a new peer everything."""
        self._tell(link, list(self._router.places), snapshot=True)

    def tell_changes(self) -> None:
        """Tell every peer what changed since the last time."""
        if self._dirty:
            names, self._dirty = self._dirty, set()
            self._version += 1
            for link in self._links.values():
                self._tell(link, names, snapshot=False)

    def withdraw(self) -> None:
        """Tell every peer that nothing is served here any more, whatever comes."""
        self._version += 1
        for link in self._links.values():
            self._tell(link, (), snapshot=True)
        self._router.changed = lambda place: None

    def _changed(self, place: Place) -> None:
        if place.name[0] != INBOX:
            self._dirty.add(place.name)

    def _announced(self, place: Place, then: Callable[[], object]) -> None:
        """Call ``then`` when every peer knows who serves the place."""
        if place.name[0] == INBOX or not self._links:
            then()
            return
        self.tell_changes()
        self._unconfirmed.append((self._version, then))
        self.confirm()

    def confirm(self) -> None:
        """Call back whoever waits for what all peers have seen by now."""
        seen = min((link.seen for link in self._links.values()), default=self._version)
        done = [then for version, then in self._unconfirmed if version <= seen]
        self._unconfirmed = [(version, then) for version, then in self._unconfirmed if version > seen]
        for then in done:
            then()

    def _tell(self, link: Link, names: Iterable[bytes], *, snapshot: bool) -> None:
        told = {}
        for name in names:
            place = self._router.places.get(name)
            takers = [taker for taker in place.takers if taker.local] if place else []
            if name[0] != INBOX and (takers or not snapshot):
                told[name.decode()] = len(takers)
        head = Header(header.TOPICS, number=snapshot, value=self._version)
        link.transmit(head.encode(), json.dumps(told).encode())

    def told(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        """A peer says who serves what there: everything, or what changed."""
        told = read_json(payload)
        names = {name.encode(): count for name, count in told.items() if isinstance(count, int)}
        if head.number:
            for name in link.remotes.keys() - names.keys():
                names[name] = 0
        for name, count in names.items():
            if is_name(name) and name[0] != INBOX and (name in link.remotes or len(link.remotes) < _NAMES):
                self._set(link, name, count, now)
        link.transmit(Header(header.SEEN, value=head.value).encode())

    def _set(self, link: Link, name: bytes, count: int, now: float) -> None:
        """A peer has ``count`` subscriptions of that name. Of a message to all it gets one copy for all of them."""
        remotes = link.remotes.pop(name, [])
        if count > 0:
            link.remotes[name] = remotes
            place = self._router.join(name)
            wanted = min(count, _TAKERS) if isinstance(place, Shared) else 1
            while len(remotes) < wanted:
                remote = Remote(link, place, _SHARE)
                remotes.append(remote)
                place.add(remote)
                place.serve(remote, now)
            if not isinstance(place, Shared):
                remotes[0].count = count
        while len(remotes) > max(count, 0):
            remote = remotes.pop()
            self._router.leave(remote.place, remote, (), now)

    def seen(self, link: Link, head: Header, payload: bytes, now: float) -> None:
        """A peer has taken note."""
        link.seen = head.value
        self.confirm()
