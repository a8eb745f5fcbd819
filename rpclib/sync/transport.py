"""A blocking `rpclib.Transport`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from rpclib import transport as _transport
from rpclib.address import Target
from rpclib.calling.returned import Undeliverable
from rpclib.driver import Capability, Driver
from rpclib.errors import TransportClosed
from rpclib.link.counters import Counters
from rpclib.sync.client import Client
from rpclib.sync.portal import Portal
from rpclib.sync.server import Server
from rpclib.url import TransportURL


def connect(
    url: str | TransportURL | None = None,
    *,
    driver: type[Driver] | None = None,
    require: Iterable[Capability] = (),
    on_undeliverable: Callable[[Undeliverable], None] | None = None,
    **settings: Any,
) -> Transport:
    """As `rpclib.connect`; the result is opened with ``with``. ``on_undeliverable`` runs in the loop thread."""
    require = tuple(require)

    def make() -> _transport.Transport:
        return _transport.connect(
            url, driver=driver, require=require, on_undeliverable=on_undeliverable, **settings
        )

    return Transport(make)


class Transport:
    """A blocking `rpclib.Transport`."""

    def __init__(self, make: Callable[[], _transport.Transport]) -> None:
        self._make = make
        self._transport = make()
        self._portal: Portal | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connect; see `rpclib.Transport.open`."""
        with self._lock:
            self._open()

    def close(self) -> None:
        """Close; see `rpclib.Transport.close`. Idempotent. In a forked child, it leaves the parent's alone."""
        with self._lock:
            portal = self._portal
            if portal is not None:
                portal.guard()
            self._portal = None
        if portal is not None and not portal.inherited:
            try:
                portal.run(self._transport.close())
            finally:
                portal.close()

    @property
    def counters(self) -> Counters:
        return self._transport.counters

    def client(self, target: Target | str, **options: Any) -> Client:
        """As `rpclib.Transport.client`."""
        return Client(self.live, self._transport, lambda rpc: rpc.client(target, **options))

    def server(
        self,
        target: Target | str,
        endpoints: Iterable[object],
        *,
        workers: int | None = None,
        grace: float | None = None,
    ) -> Server:
        """As `rpclib.Transport.server`. Async endpoints run on the transport's loop, plain ones on threads."""
        rpc, portal = self.live()
        return Server(portal, rpc.server(target, endpoints, workers=workers, grace=grace))

    def live(self) -> tuple[_transport.Transport, Portal]:
        """The async transport, and the portal to its loop. A forked child makes new ones."""
        portal = self._portal
        if portal is None:
            raise TransportClosed("this transport is not open")
        if portal.inherited:
            with self._lock:
                if self._portal is portal:
                    self._transport = self._make()
                    self._open()
                assert self._portal is not None
                portal = self._portal
        return self._transport, portal

    def _open(self) -> None:
        portal = Portal()
        try:
            portal.run(self._transport.open())
        except BaseException:
            portal.close()
            raise
        self._portal = portal

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sync {self._transport!r}>"
