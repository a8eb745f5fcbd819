"""A blocking `rpclib.Server`."""

from __future__ import annotations

import contextlib
import threading
from typing import Self

from rpclib.address import Target
from rpclib.errors import ForkError, RpcError, TransportClosed
from rpclib.serving import server as _server
from rpclib.serving import signals
from rpclib.sync.portal import Job, Portal


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
