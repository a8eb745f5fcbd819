"""`Client`: call, cast and fanout to one target."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from rpclib import serializer
from rpclib.address import Address, Target, parse_version
from rpclib.calls import Call
from rpclib.context import Context, current
from rpclib.driver import Driver, Route
from rpclib.envelope import CALL, CAST, Request, encode_request
from rpclib.errors import (
    CallTimeout,
    ConfigError,
    ConnectionLost,
    MaybeExecuted,
    MessageTooLarge,
    Overloaded,
    UnsupportedVersion,
)
from rpclib.memory import keep_freed

if TYPE_CHECKING:
    from rpclib.transport import Transport


@dataclass(frozen=True, slots=True)
class Options:
    """How a client sends; see `Client.prepare` for their meaning."""

    timeout: float
    route_grace: float
    version: str | None = None
    version_cap: str | None = None
    namespace: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    retry: int = 0

    def __post_init__(self) -> None:
        for name in ("timeout", "route_grace"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
        if self.timeout == 0:
            raise ConfigError("timeout must be more than 0 seconds")
        if isinstance(self.retry, bool) or not isinstance(self.retry, int) or self.retry < 0:
            raise ConfigError(f"retry must be the number of repetitions, not {self.retry!r}")
        Target(namespace=self.namespace, version=self.version)  # which checks both
        cap = None if self.version_cap is None else parse_version(self.version_cap)
        if self.version is not None and cap is not None:
            version = parse_version(self.version)
            if version[0] != cap[0] or version[1] > cap[1]:
                raise UnsupportedVersion(
                    f"version {self.version} is beyond version_cap {self.version_cap}: some servers do not know it "
                    "yet. Ask can_send() first"
                )
        if not isinstance(self.context, dict):
            raise ConfigError(f"context must be a dict, not {self.context!r}")
        for key in self.context:
            if not isinstance(key, str):
                raise ConfigError(f"context keys are str, not {key!r}")
        serializer.check(self.context, "context")


class Client:
    """Calls one target. Immutable and cheap: `to` and `prepare` return changed copies.

    Arguments travel by name and must be of the types in rpclib.serializer. Every method raises
    SerializationError and MessageTooLarge before anything is sent.
    """

    def __init__(self, rpc: Transport, target: Target, **options: Any) -> None:
        self._rpc = rpc
        self.target = target
        self._address = target.one()
        settings = rpc.settings
        self.options = Options(
            **{
                "timeout": settings.timeout,
                "route_grace": settings.route_grace,
                "version": target.version,
                "namespace": target.namespace,
                **_known(options),
            }
        )
        self._driver: Driver | None = None
        self._route: Route

    def prepare(self, **options: Any) -> Client:
        """A copy that sends differently.

        ``timeout``: seconds until a call ends, covering every wait. ``version`` (``"1.2"``): what the endpoint
        must implement; ``version_cap``: the highest version all servers know, ``namespace``: which endpoints.
        ``context``: metadata for the endpoint and the calls it makes, added to what is inherited.
        ``retry``: how often a call is repeated, within its timeout, after ConnectionLost, WorkerLost or a
        NoServer that may have run; for idempotent methods only. ``route_grace``: seconds a call waits for a server
        to appear. Raises ConfigError for another name or a bad value, UnsupportedVersion beyond the cap.
        """
        copy = Client.__new__(Client)
        copy._rpc, copy.target, copy._address = self._rpc, self.target, self._address
        copy.options = replace(self.options, **_known(options))
        copy._driver = None
        return copy

    def to(self, server: str) -> Client:
        """A copy that reaches only the server of that name."""
        copy = self.prepare()
        copy.target = replace(self.target, server=server)
        copy._address = copy.target.one()
        return copy

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
        return self._cast(method, arguments, self._address)

    def fanout(self, method: str, /, **arguments: Any) -> Coroutine[Any, Any, None]:
        """Like `cast`, to every server of the topic. Reaching none is no error."""
        return self._cast(method, arguments, self.target.all())

    async def _call(self, method: str, arguments: dict[str, Any], timeout: float) -> Any:
        rpc, context, outer = self._rpc, self.options.context, current.get()
        serializer.check(arguments)
        if outer is not None:
            context, timeout = {**(outer.context or {}), **context}, self._inherit(outer, timeout, method)
        driver = rpc.connection.driver
        if driver is not None and driver is not self._driver:
            self._routed(driver)
        if driver is None or driver.gate.shut or self._route.gate.shut or rpc.inbox is None:
            driver, timeout = await self._wait(timeout, method, self._address)
        options, calls, now, ident = self.options, rpc.calls, monotonic(), next(rpc.ids)
        future: asyncio.Future[Any] = asyncio.Future(loop=rpc.loop)
        call = Call(ident, self._address, method, future, now, now + timeout, options.route_grace)
        while True:
            body = encode_request(
                CALL,
                ident,
                method,
                arguments,
                timeout,
                rpc.inbox,
                options.namespace,
                options.version,
                context or None,
                rpc.caller,
            )
            if len(body) > rpc.short:
                self._long(method, body)
            try:
                driver.send(self._route if driver is self._driver else self._routed(driver), body, timeout, ident)
                break
            except ConnectionLost as error:
                rpc.connection.dead(driver, error)
                driver, timeout = await self._wait(call.deadline - monotonic(), method, self._address)
        calls.add(call)
        try:
            return await future
        except BaseException:
            calls.remove(call)
            raise

    async def _call_again(self, method: str, arguments: dict[str, Any]) -> Any:
        end = monotonic() + self.options.timeout
        for _ in range(self.options.retry):
            try:
                return await self._call(method, arguments, max(0.001, end - monotonic()))
            except MaybeExecuted as error:
                if not error.maybe_executed or monotonic() >= end:
                    raise
        return await self._call(method, arguments, max(0.001, end - monotonic()))

    async def _cast(self, method: str, arguments: dict[str, Any], address: Address) -> None:
        rpc, options = self._rpc, self.options
        serializer.check(arguments)
        context, outer = options.context, current.get()
        if outer is not None:
            context = {**(outer.context or {}), **context}
        body = encode_request(
            CAST,
            next(rpc.ids),
            method,
            arguments,
            None,
            None,
            options.namespace,
            options.version,
            context or None,
            rpc.caller,
        )
        if len(body) > rpc.short:
            self._long(method, body)
        driver, end = rpc.connection.driver, 0.0
        while True:
            if driver is None:
                end = end or monotonic() + options.timeout
                driver, _ = await self._wait(end - monotonic(), method, address)
            if address is not self._address:
                route = driver.route(address)
            elif driver is self._driver:
                route = self._route
            else:
                route = self._routed(driver)
            if driver.gate.shut or route.gate.shut:
                driver = None
                continue
            try:
                driver.send(route, body, None)
                return
            except ConnectionLost as error:
                rpc.connection.dead(driver, error)
                driver = None

    def _routed(self, driver: Driver) -> Route:
        """The way to this client's address, which a new session has to prepare once."""
        self._route, self._driver = driver.route(self._address), driver
        return self._route

    def _long(self, method: str, body: bytes) -> None:
        """What a long message takes. Raises MessageTooLarge."""
        keep_freed()
        rpc = self._rpc
        if len(body) > rpc.max_body:
            raise MessageTooLarge(
                f"the arguments of {method} take {len(body)} bytes; {rpc.resolved.url.scheme}:// carries at most "
                f"{rpc.max_body}. Send less, or a reference"
            )

    async def _wait(self, timeout: float, method: str, address: Address) -> tuple[Driver, float]:
        """A session that takes a message for ``address``, and the seconds that are left."""
        began = monotonic()
        if timeout <= 0:
            self._overloaded(method, 0.0)
        try:
            driver = await self._rpc.connection.ready(timeout, to=address)
        except TimeoutError:
            self._overloaded(method, monotonic() - began)
        return driver, max(0.001, timeout - (monotonic() - began))

    def _overloaded(self, method: str, waited: float) -> NoReturn:
        reason = self._rpc.connection.blocked or "its send buffer stayed full"
        raise Overloaded(
            f"{method} to {self.target} was not sent: {self._rpc.connection.host} took no message for "
            f"{waited:.1f} s ({reason})"
        ) from None

    def _inherit(self, outer: Request, timeout: float, method: str) -> float:
        """The timeout of a call made while the request ``outer`` is served."""
        remaining = Context(outer).remaining
        if remaining is None:
            return timeout
        if remaining <= 0:
            raise CallTimeout(
                f"{method} to {self.target} was not sent: the call being served here has used up its time"
            )
        return min(remaining, timeout)

    def __repr__(self) -> str:
        return f"<Client of {self.target} on {self._rpc.resolved.url}>"


_NAMES = frozenset(Options.__dataclass_fields__)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name not in _NAMES:
            raise ConfigError(f'a client has no option "{name}"; it has {", ".join(sorted(_NAMES))}')
    return options
