"""`Client`: call, cast and fanout to one target."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from rpclib.address import Target, parse_version
from rpclib.calling.calls import Call, Calls
from rpclib.calling.options import Options
from rpclib.context import Context, current
from rpclib.errors import CallTimeout, MaybeExecuted
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from rpclib.wire import serializer
from rpclib.wire.request import Meta, Request, encode_call, encode_cast


class Client:
    """Calls one target. Immutable and cheap: `to` and `prepare` return changed copies.

    Made by `Transport.client`. Arguments travel by name and must be of the types in docs/reference/envelope.md.
    Every method raises SerializationError and MessageTooLarge before anything is sent.
    """

    def __init__(self, link: Link, calls: Calls, target: Target, options: Options) -> None:
        self.target = target
        self.options = options
        self._link = link
        self._calls = calls
        self._sender = Sender(link, target.one())
        self._to_all: Sender | None = None
        self._meta: Meta = (options.namespace, options.version, options.context or None, link.caller, 0)

    def prepare(self, **options: Any) -> Client:
        """A copy that sends differently.

        ``timeout``: seconds until a call ends, covering every wait. ``version`` (``"1.2"``): what the endpoint
        must implement; ``version_cap``: the highest version all servers know, ``namespace``: which endpoints.
        ``context``: metadata for the endpoint and the calls it makes, added to what is inherited.
        ``retry``: how often a call is repeated, within its timeout, after ConnectionLost, WorkerLost or a
        NoServer that may have run; for idempotent methods only. ``route_grace``: seconds a call waits for a server
        to appear. Raises ConfigError for another name or a bad value, UnsupportedVersion beyond the cap.
        """
        return Client(self._link, self._calls, self.target, self.options.changed(options))

    def to(self, server: str) -> Client:
        """A copy that reaches only the server of that name. Raises ConfigError for an illegal name."""
        return Client(self._link, self._calls, replace(self.target, server=server), self.options)

    def can_send(self, version: str) -> bool:
        """Whether ``version_cap`` allows ``version``."""
        cap = self.options.version_cap
        if cap is None:
            return True
        (major, minor), (cap_major, cap_minor) = parse_version(version), parse_version(cap)
        return major == cap_major and minor <= cap_minor

    def call(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, Any]:
        """Run ``method`` on one server and return its result. A coroutine: nothing happens until it is awaited.

        Ends within ``timeout``, or earlier: within what the call being served has left. Raises what the
        endpoint raised (RemoteError, or a registered exception), CallTimeout, NoServer, WorkerLost,
        ConnectionLost (``maybe_executed`` says whether it may have run), Unreachable, Overloaded,
        NoSuchMethod, InvalidArguments, UnsupportedVersion. Cancelling it forgets the reply.
        """
        if self.options.retry:
            return self._call_again(method, arguments)
        return self._call(method, arguments, self.options.timeout)

    def cast(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, None]:
        """Ask one server to run ``method``; nobody tells how it went. A coroutine, as `call`.

        Returns when the bounded send buffer has it. Under back-pressure, or while there is no connection, it
        waits up to ``timeout``, then raises Overloaded or Unreachable. A cast that reaches nobody does not
        raise: it is counted and given to ``rpc.on_undeliverable``.
        """
        return self._cast(method, arguments, self._sender)

    def fanout(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, None]:
        """Like `cast`, to every server of the topic. Reaching none is no error."""
        if self._to_all is None:
            self._to_all = Sender(self._link, self.target.all())
        return self._cast(method, arguments, self._to_all)

    async def _call(self, method: str, arguments: dict[str, Any], timeout: float) -> Any:
        serializer.check(arguments)
        link, sender, meta, outer = self._link, self._sender, self._meta, current.get()
        if outer is not None:
            meta, timeout = self._inherited_context(outer), self._inherited_timeout(outer, timeout, method)
        if link.inbox.key is None:  # there is no session, or never was one
            timeout = await sender.ready(timeout, f"{method} to {self.target}")
        now = link.now()
        future: asyncio.Future[Any] = asyncio.Future(loop=link.loop)
        call = Call(link.ids.next(), sender, method, future, now, now + timeout, self.options.route_grace)
        while True:
            reply_to = link.inbox.key
            if reply_to is not None:
                body = encode_call(call.id, method, arguments, timeout, reply_to, meta)
                if len(body) > link.short:
                    link.long(body, f"the arguments of {method}")
                if sender.send(body, timeout, call.id):
                    break
            timeout = await sender.ready(call.deadline - link.now(), f"{method} to {self.target}")
            call.sent = link.now()
        self._calls.add(call)
        try:
            return await future
        except BaseException:
            self._calls.remove(call)
            raise

    async def _call_again(self, method: str, arguments: dict[str, Any]) -> Any:
        end = self._link.now() + self.options.timeout
        for _ in range(self.options.retry):
            try:
                return await self._call(method, arguments, max(0.001, end - self._link.now()))
            except MaybeExecuted as error:
                if not error.maybe_executed or self._link.now() >= end:
                    raise
        return await self._call(method, arguments, max(0.001, end - self._link.now()))

    async def _cast(self, method: str, arguments: dict[str, Any], sender: Sender) -> None:
        serializer.check(arguments)
        link, outer = self._link, current.get()
        meta = self._meta if outer is None else self._inherited_context(outer)
        body = encode_cast(link.ids.next(), method, arguments, meta)
        if len(body) > link.short:
            link.long(body, f"the arguments of {method}")
        if not sender.send(body, None):
            end = link.now() + self.options.timeout
            while True:
                await sender.ready(end - link.now(), f"{method} to {self.target}")
                if sender.send(body, None):
                    return

    def _inherited_context(self, outer: Request) -> Meta:
        """The fields of a request that is made while ``outer`` is served."""
        namespace, version, context, caller, credit = self._meta
        if outer.context:
            context = {**outer.context, **(context or {})}
        return namespace, version, context, caller, credit

    def _inherited_timeout(self, outer: Request, timeout: float, method: str) -> float:
        """The timeout of a call that is made while ``outer`` is served. Raises CallTimeout."""
        remaining = Context(outer).remaining
        if remaining is None:
            return timeout
        if remaining <= 0:
            raise CallTimeout(
                f"{method} to {self.target} was not sent: the call being served here has used up its time"
            )
        return min(remaining, timeout)

    def __repr__(self) -> str:
        return f"<Client of {self.target} on {self._link.connection.url}>"
