"""`connect` and `Transport`: one connection to a backend, shared by any number of clients and servers."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from rpclib import envelope
from rpclib.address import Address, Kind, Target
from rpclib.calls import Call, Calls
from rpclib.connection import Connection, ConnectionObserver
from rpclib.crew import Crew
from rpclib.driver import Capability, Driver
from rpclib.envelope import Alive, Failure, Request, Result
from rpclib.errors import (
    BadEnvelope,
    CapabilityMissing,
    ConfigError,
    ConnectionLost,
    MaybeExecuted,
    NoServer,
    TransportClosed,
    TransportError,
    WorkerLost,
    again,
    details_of,
)
from rpclib.intake import Intake
from rpclib.liveness import Liveness
from rpclib.memory import LONG
from rpclib.replies import Replies

if TYPE_CHECKING:
    from rpclib.client import Client
    from rpclib.config import Resolved
    from rpclib.server import Server
    from rpclib.url import TransportURL

log = logging.getLogger("rpclib")

_FIRST_RESEND = 0.05


@dataclass
class Counters:
    """What went another way than asked for, since the transport was opened. Read them; do not write."""

    undeliverable: int = 0
    """Casts that reached nobody."""
    bad_envelopes: int = 0
    """Received bodies that were dropped because they do not parse."""
    expired: int = 0
    """Requests dropped because their caller had stopped waiting."""
    redelivered: int = 0
    """Requests not executed because they may have run before."""
    failed: int = 0
    """Requests whose endpoint raised, or that were refused."""
    unanswered: int = 0
    """Replies that could not be sent."""
    reconnects: int = 0
    """Sessions opened after the first."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """A cast that reached nobody, as given to `Transport.on_undeliverable`."""

    method: str
    args: dict[str, Any]
    reason: str


def connect(
    url: str | TransportURL | None = None,
    *,
    driver: type[Driver] | None = None,
    require: Iterable[Capability] = (),
    on_undeliverable: Callable[[Undeliverable], None] | None = None,
    **settings: Any,
) -> Transport:
    """A transport for ``url``, or for the configured one (docs/configuration.md). Open it with ``async with``.

    ``driver``: a driver class to use instead of the one installed for the URL's scheme. ``require``:
    capabilities the program relies on. ``settings``: any setting (``timeout=5``), and ``options={...}`` for the
    driver. Raises ConfigError and its subclasses at once; nothing is opened yet.
    """
    from rpclib.config import resolve  # pydantic takes a tenth of a second to import

    resolved = resolve(url, driver=driver, **settings)
    missing = [item.value for item in require if item not in resolved.driver.capabilities]
    if missing:
        raise CapabilityMissing(
            f'the driver of {resolved.url.scheme}:// does not do {", ".join(missing)}; "rpclib drivers" shows '
            "what each installed driver does"
        )
    return Transport(resolved, on_undeliverable)


class Transport(ConnectionObserver):
    """A connection to one backend. Make one with `connect`; it belongs to the loop that opened it.

    Clients and servers made from it share its session and its reply inbox, and end with it.
    """

    def __init__(self, resolved: Resolved, on_undeliverable: Callable[[Undeliverable], None] | None = None) -> None:
        self.resolved = resolved
        self.settings = resolved.settings
        self.on_undeliverable = on_undeliverable
        self.counters = Counters()
        self.caller = f"{socket.gethostname()}:{os.getpid()}"
        self.loop: asyncio.AbstractEventLoop
        """The one that opened it."""
        self.calls: Calls
        self.crew = Crew()
        self.replies = Replies(self)
        self.connection = Connection(resolved, self)
        self.inbox: str | None = None
        """The key of the live session's inbox."""
        self.max_body = envelope.MAX_BODY
        """The longest envelope that can be sent, in bytes."""
        self.short = LONG
        """Bytes up to which an envelope is not long (see `rpclib.memory`), nor too long."""
        self.alive: bytes | None = None
        """The id of the last ALIVE envelope that came back."""
        self._first = int.from_bytes(os.urandom(8)) << 64
        self.ids = map(int.to_bytes, itertools.count(self._first), itertools.repeat(16))
        """The next is 16 bytes, unique: random per transport, then a number."""
        self._intake: Intake | None = None
        self._watching: asyncio.Task[None] | None = None
        self.servers: list[Server] = []
        """Those that were made and have not stopped."""

    async def open(self) -> None:
        """Connect: returns with a session that can send and receive, or raises within ``connect_timeout``.

        Raises Unreachable naming every host with its error, AccessDenied at once.
        """
        if self._intake is not None:
            raise ConfigError("this transport was opened before; make a new one with connect()")
        self.loop = asyncio.get_running_loop()
        self.calls = Calls(self.loop)
        await self.connection.open()
        try:
            inbox = Address(Kind.INBOX, self.settings.exchange)
            self._intake = await self.connection.subscribe(inbox, prefetch=0, arrived=self._receive)
            self.inbox = self._intake.key
        except BaseException:
            await self.connection.close(flush=False)
            raise
        self._watching = self.loop.create_task(Liveness(self).watch())

    async def close(self) -> None:
        """Stop the servers (each within its ``grace``), hand over what was sent, end every call in flight with
        TransportClosed. Idempotent."""
        stops = await asyncio.gather(*(server.stop() for server in self.servers), return_exceptions=True)
        try:
            for stop in stops:
                if isinstance(stop, BaseException):
                    raise stop
        finally:
            if self._intake is not None:
                self.calls.close(TransportClosed("the transport was closed"))
            if self._watching is not None:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)
                self._watching = None
                await self.crew.close()
            await self.connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def client(self, target: Target | str, **options: Any) -> Client:
        """A client for ``target`` (a topic, or a Target). ``options`` as in `Client.prepare`."""
        from rpclib.client import Client

        if isinstance(target, str):
            target = Target(target)
        return Client(self, target.within(self.settings.exchange), **options)

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
        from rpclib.server import Server

        if isinstance(target, str):
            target = Target(target)
        server = Server(
            self,
            target.within(self.settings.exchange),
            endpoints,
            workers=self.settings.workers if workers is None else workers,
            grace=self.settings.grace if grace is None else grace,
        )
        self.servers.append(server)
        return server

    def forget(self, server: Server) -> None:
        if server in self.servers:
            self.servers.remove(server)

    def __repr__(self) -> str:
        return f"<Transport {self.resolved.url}>"

    def _receive(self, inbox: Intake) -> None:
        """Hand every reply that has arrived to its call."""
        for delivery in inbox.take(1 << 30):
            try:
                message = envelope.decode(delivery.body)
            except BadEnvelope as error:
                self.bad_envelope(error)
                continue
            if type(message) is Result or type(message) is Failure:
                self.calls.resolve(message)
            elif type(message) is Alive:
                self.alive = message.id
            else:
                self.bad_envelope(BadEnvelope("a request in an inbox"))

    def bad_envelope(self, error: BadEnvelope) -> None:
        self.counters.bad_envelopes += 1
        log.warning("dropped a message: %s", error)

    # What the connection tells (see ConnectionObserver).

    def opened(self, driver: Driver) -> None:
        self.max_body = min(envelope.MAX_BODY, driver.max_body)
        self.short = min(LONG, self.max_body)
        if self._intake is not None:
            self.inbox = self._intake.key
            self.counters.reconnects += 1

    def lost(self, error: TransportError) -> None:
        self.inbox = None
        self.calls.fail_sent(ConnectionLost(str(error), maybe_executed=True))

    def worker_lost(self, tag: bytes) -> None:
        call = self.calls.table.get(tag)
        if call is not None:
            call.fail(WorkerLost(f"the worker that had taken {call} went away", maybe_executed=True))

    def undeliverable(self, body: bytes, reason: str) -> None:
        try:
            request = envelope.decode(body)
        except BadEnvelope:
            return
        if not isinstance(request, Request):
            return
        call = self.calls.table.get(request.id)
        if call is not None:
            self._send_again(call, request, reason)
        elif request.reply_to is None:
            self._report(request, reason)
        elif request.id[:8] != self._first.to_bytes(16)[:8]:
            # Passed on by a server of ours that was stopping; its caller waits elsewhere.
            error = NoServer(f"nobody serves {request.method} any more: {reason}", maybe_executed=False)
            self.send_error(request, error)

    def refused(self, body: bytes, error: TransportError) -> None:
        try:
            request = envelope.decode(body)
        except BadEnvelope:
            return
        if not isinstance(request, Request):
            return
        call = self.calls.table.get(request.id)
        if call is not None:
            call.fail(again(error, f"{call} was not sent: {error}"))
        elif request.reply_to is None:
            self._report(request, str(error))

    def send_error(self, request: Request, error: MaybeExecuted) -> None:
        """Answer a request that will not run, if the session allows it right now."""
        driver = self.connection.driver
        if driver is None or request.reply_to is None:
            return
        body = envelope.encode_error(request.id, error.code, "", str(error), "", None, details_of(error))
        try:
            driver.send(driver.route(Address.inbox(request.reply_to)), body, None, request.id)
        except TransportError:
            self.counters.unanswered += 1

    def _report(self, request: Request, reason: str) -> None:
        self.counters.undeliverable += 1
        if self.on_undeliverable is None:
            return
        try:
            self.on_undeliverable(Undeliverable(request.method, request.args, reason))
        except Exception:
            log.exception("on_undeliverable raised")

    def _send_again(self, call: Call, request: Request, reason: str) -> None:
        """A server may be starting this moment: try until the grace is over, then say that nobody is there."""
        elapsed = monotonic() - call.sent
        call.returned = NoServer(
            f"nobody serves {call.address} on {self.connection.host} ({reason}; tried for {elapsed:.1f} s). "
            "Is the server running, and with the same exchange?",
            maybe_executed=False,
        )
        if elapsed >= call.route_grace:
            call.fail(call.returned)
            return
        delay = min(
            _FIRST_RESEND * 2**call.resends, call.route_grace - elapsed, max(0.0, call.deadline - monotonic())
        )
        call.resends += 1
        self.loop.call_later(delay, self._resend, call, request)

    def _resend(self, call: Call, request: Request) -> None:
        driver, remaining = self.connection.driver, call.deadline - monotonic()
        if call.future.done() or remaining <= 0:
            return
        route = None if driver is None else driver.route(call.address)
        if driver is None or route is None or driver.gate.shut or route.gate.shut:
            self.loop.call_later(_FIRST_RESEND, self._resend, call, request)
            return
        body = envelope.encode_again(request, remaining, self.inbox)
        try:
            driver.send(route, body, remaining, call.id)
            call.returned = None
        except ConnectionLost as error:
            self.connection.dead(driver, error)
            self.loop.call_later(_FIRST_RESEND, self._resend, call, request)
