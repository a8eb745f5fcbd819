"""The same API, blocking: ``with rpclib.sync.connect(url) as rpc: rpc.client("compute").call("boot")``.

A thin facade: each transport runs the async one on a loop in a thread of its own. Every object is thread-safe.
After a fork, the first use in the child opens a new connection there; servers stay the parent's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from rpclib import client as _client
from rpclib import server as _server
from rpclib import signals
from rpclib import transport as _transport
from rpclib.address import Target
from rpclib.counters import Counters
from rpclib.driver import Capability, Driver
from rpclib.errors import ForkError, RpcError, TransportClosed
from rpclib.portal import Job, Portal
from rpclib.returned import Undeliverable
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
        """The async transport, and the portal to its loop; both made anew in a forked child."""
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


class Client:
    """A blocking `rpclib.Client`."""

    def __init__(
        self,
        live: Callable[[], tuple[_transport.Transport, Portal]],
        transport: _transport.Transport,
        make: Callable[[_transport.Transport], _client.Client],
    ) -> None:
        self._live_transport = live
        self._make = make
        self._made = make(transport)
        self._made_by = transport

    @property
    def target(self) -> Target:
        return self._made.target

    def prepare(self, **options: Any) -> Client:
        """As `rpclib.Client.prepare`."""
        return self._changed(lambda client: client.prepare(**options))

    def to(self, server: str) -> Client:
        """As `rpclib.Client.to`."""
        return self._changed(lambda client: client.to(server))

    def can_send(self, version: str) -> bool:
        """As `rpclib.Client.can_send`."""
        return self._made.can_send(version)

    def call(self, method: str, /, **arguments: Any) -> Any:
        """As `rpclib.Client.call`. Ctrl-C ends the wait and forgets the reply."""
        client, portal = self._live()
        return portal.run(client.call(method, **arguments))

    def cast(self, method: str, /, **arguments: Any) -> None:
        """As `rpclib.Client.cast`."""
        client, portal = self._live()
        portal.run(client.cast(method, **arguments))

    def fanout(self, method: str, /, **arguments: Any) -> None:
        """As `rpclib.Client.fanout`."""
        client, portal = self._live()
        portal.run(client.fanout(method, **arguments))

    def _changed(self, change: Callable[[_client.Client], _client.Client]) -> Client:
        make = self._make
        return Client(self._live_transport, self._made_by, lambda rpc: change(make(rpc)))

    def _live(self) -> tuple[_client.Client, Portal]:
        transport, portal = self._live_transport()
        if transport is not self._made_by:
            self._made, self._made_by = self._make(transport), transport
        return self._made, portal

    def __repr__(self) -> str:
        return f"<sync {self._made!r}>"


class Server:
    """A blocking `rpclib.Server`. In a forked child it is of no use: it is the parent's."""

    def __init__(self, portal: Portal, server: _server.Server) -> None:
        self._portal = portal
        self._server = server

    @property
    def target(self) -> Target:
        return self._server.target

    def start(self) -> None:
        """As `rpclib.Server.start`."""
        self._own().run(self._server.start())

    def stop(self, grace: float | None = None) -> None:
        """As `rpclib.Server.stop`. In a forked child, it leaves the parent's alone."""
        if not self._portal.inherited:
            with contextlib.suppress(TransportClosed):  # which stopped it
                self._portal.run(self._server.stop(grace))

    def wait(self) -> None:
        """As `rpclib.Server.wait`."""
        self._own().run(self._server.wait())

    def serve_forever(self) -> None:
        """As `rpclib.Server.serve_forever`."""
        if threading.current_thread() is not threading.main_thread():
            raise RpcError(
                "serve_forever() handles signals and so belongs into the main thread; elsewhere use wait()"
            )
        if not self._server.started:
            self.start()
        stops: list[Job[None]] = []
        portal = self._own()

        def stop(grace: float | None) -> None:
            stops.append(portal.submit(self._server.stop(grace)))

        with signals.without_loop(lambda: stop(None), lambda: stop(0)):
            self.wait()

    def _own(self) -> Portal:
        if self._portal.inherited:
            raise ForkError("this server belongs to the process that made it; make a new one with rpc.server()")
        return self._portal

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<sync {self._server!r}>"
