"""`connect` and `Transport`: one connection to a backend, shared by any number of clients and servers.

`Transport` is where the parts are joined; what each part does is in its own file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from rpclib import tasks
from rpclib.address import Target
from rpclib.calling.calls import Calls
from rpclib.calling.client import Client
from rpclib.calling.options import Options
from rpclib.calling.presence import Presence
from rpclib.calling.returned import Returned, Undeliverable
from rpclib.driver import Capability, Driver
from rpclib.errors import (
    BadEnvelope,
    CapabilityMissing,
    ConfigError,
    ConnectionLost,
    NoServer,
    TransportClosed,
    TransportError,
    again,
)
from rpclib.link.connection import Connection, ConnectionObserver
from rpclib.link.counters import Counters
from rpclib.link.link import Link
from rpclib.link.loopback import Loopback
from rpclib.link.watch import watch
from rpclib.serving.crew import Crew
from rpclib.serving.replies import Replies
from rpclib.serving.server import Server
from rpclib.wire import envelope
from rpclib.wire.answer import Failure, Result
from rpclib.wire.request import Request

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import
    from rpclib.config.settings import Resolved, Settings
    from rpclib.url import TransportURL


def connect(
    url: str | TransportURL | None = None,
    *,
    driver: type[Driver] | None = None,
    require: Iterable[Capability] = (),
    on_undeliverable: Callable[[Undeliverable], None] | None = None,
    **settings: Any,
) -> Transport:
    """A transport for ``url``, or for the configured one (docs/reference/configuration.md).

    Open it with ``async with``.
    ``driver``: a driver class to use instead of the one installed for the URL's scheme. ``require``:
    capabilities the program relies on. ``settings``: any setting (``timeout=5``), and ``options={...}`` for the
    driver. Raises ConfigError and its subclasses at once; nothing is opened yet.
    """
    from rpclib.config.settings import resolve  # here, because of pydantic: see above

    resolved = resolve(url, driver=driver, **settings)
    require = tuple(require)
    missing = [item.value for item in require if item not in resolved.driver.capabilities]
    if missing:
        raise CapabilityMissing(
            f'the driver of {resolved.url.scheme}:// does not do {", ".join(missing)}; "rpclib drivers" shows '
            "what each installed driver does"
        )
    return Transport(resolved, on_undeliverable, require)


class Transport:
    """A connection to one backend. Make one with `connect`; it belongs to the loop that opened it.

    Clients and servers made from it share its session and its reply inbox, and end with it.
    """

    def __init__(
        self,
        resolved: Resolved,
        on_undeliverable: Callable[[Undeliverable], None] | None = None,
        require: Iterable[Capability] = (),
    ) -> None:
        self._resolved = resolved
        self._connection = Connection(resolved, require)
        self._link = Link(self._connection)
        self._calls = Calls(self._link)
        self._crew = Crew()
        self._replies = Replies(self._link)
        self._returned = Returned(self._link, on_undeliverable)
        self._checks = (Loopback(self._link).check, Presence(self._link, self._calls).check)
        self._observer = _Observer(self._link, self._calls, self._returned, self._replies)
        self._link.inbox.on(Result, self._calls.resolve)
        self._link.inbox.on(Failure, self._calls.resolve)
        self._link.inbox.listen(self._connection, self.settings.exchange)
        self._opened = False
        self._watching: asyncio.Task[None] | None = None
        self._servers: list[Server] = []
        """The servers that were made and have not stopped."""

    @property
    def settings(self) -> Settings:
        """The settings that apply, wherever they were given; see docs/reference/configuration.md."""
        return self._resolved.settings

    @property
    def url(self) -> TransportURL:
        """Where it connects to. Shown without its password."""
        return self._resolved.url

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the driver promises: of the live session, which may lack some, or else of the driver's class."""
        driver = self._connection.driver
        return self._resolved.driver.capabilities if driver is None else driver.capabilities

    @property
    def counters(self) -> Counters:
        """What was counted since it was opened."""
        return self._link.counters

    @property
    def on_undeliverable(self) -> Callable[[Undeliverable], None] | None:
        """Called on the loop with each cast that reached nobody. It returns at once."""
        return self._returned.on_undeliverable

    @on_undeliverable.setter
    def on_undeliverable(self, function: Callable[[Undeliverable], None] | None) -> None:
        self._returned.on_undeliverable = function

    async def open(self) -> None:
        """Connect: returns with a session that can send and receive, or raises within ``connect_timeout``.

        Raises Unreachable naming every host with its error, AccessDenied at once.
        """
        if self._opened:
            raise ConfigError("this transport was opened before; make a new one with connect()")
        self._link.bind(asyncio.get_running_loop())
        await self._connection.open(self._observer)
        self._opened = True
        self._watching = self._link.loop.create_task(watch(self._connection, self._checks))

    async def close(self) -> None:
        """Stop the servers (each within its ``grace``), hand over what was sent, end every call in flight with
        TransportClosed. Idempotent."""
        stops = await asyncio.gather(*(server.stop() for server in self._servers), return_exceptions=True)
        try:
            for stop in stops:
                if isinstance(stop, BaseException):
                    raise stop
        finally:
            self._calls.close(TransportClosed("the transport was closed"))
            if self._watching is not None:
                await tasks.ended(self._watching)
                self._watching = None
                await self._crew.close()
            await self._connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def client(self, target: Target | str, **options: Any) -> Client:
        """A client for ``target`` (a topic, or a Target). ``options`` as in `Client.prepare`."""
        target = self._within(target)
        settings = self.settings
        base = Options(settings.timeout, settings.route_grace, target.version, namespace=target.namespace)
        return Client(self._link, self._calls, target, base.changed(options))

    def server(
        self,
        target: Target | str,
        endpoints: Iterable[object],
        *,
        workers: int | None = None,
        grace: float | None = None,
    ) -> Server:
        """A server of ``endpoints`` at ``target``; start it with ``async with`` or `Server.serve_forever`.

        ``workers`` bounds the requests running at a time (default: the setting, 64), ``grace`` the seconds a
        stop waits for them (default: the setting, 10).
        """
        server = Server(
            self._link,
            self._crew,
            self._replies,
            self._within(target),
            endpoints,
            workers=self.settings.workers if workers is None else workers,
            grace=self.settings.grace if grace is None else grace,
            on_stopped=self._forget,
        )
        self._servers.append(server)
        return server

    def _within(self, target: Target | str) -> Target:
        if isinstance(target, str):
            target = Target(target)
        return target.within(self.settings.exchange)

    def _forget(self, server: Server) -> None:
        if server in self._servers:
            self._servers.remove(server)

    def __repr__(self) -> str:
        return f"<Transport {self.url}>"


class _Observer(ConnectionObserver):
    """What a transport does about the events of its connection: which part has to know."""

    def __init__(self, link: Link, calls: Calls, returned: Returned, replies: Replies) -> None:
        self._link, self._calls, self._returned, self._replies = link, calls, returned, replies

    def opened(self, driver: Driver) -> None:
        self._link.opened(driver)

    def lost(self, error: TransportError) -> None:
        self._link.inbox.key = None
        self._calls.fail_sent(ConnectionLost(str(error), maybe_executed=True))

    def worker_lost(self, tag: bytes) -> None:
        self._calls.worker_lost(tag)

    def undeliverable(self, body: bytes, reason: str) -> None:
        request = _request(body)
        if request is None:
            return
        call = self._calls.table.get(request.id)
        if call is not None:
            self._returned.call(call, request, reason)
        elif not request.wants_answer:
            self._returned.cast(request, reason)
        elif not self._link.ids.mine(request.id):
            # Passed on by a server of this process that was stopping; its caller waits elsewhere.
            error = NoServer(f"nobody serves {request.method} any more: {reason}", maybe_executed=False)
            self._replies.refuse(request, error)

    def refused(self, body: bytes, error: TransportError) -> None:
        request = _request(body)
        if request is None:
            return
        call = self._calls.table.get(request.id)
        if call is not None:
            call.fail(again(error, f"{call} was not sent: {error}"))
        elif not request.wants_answer:
            self._returned.cast(request, str(error))


def _request(body: bytes) -> Request | None:
    """The request that came back; None for anything else."""
    try:
        message = envelope.decode(body)
    except BadEnvelope:
        return None
    return message if isinstance(message, Request) else None
