"""A blocking `rpclib.Client`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rpclib import transport as _transport
from rpclib.address import Target
from rpclib.calling import client as _client
from rpclib.sync.portal import Portal


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
