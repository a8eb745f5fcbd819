"""One connection to the backend that outlives its sessions.

A driver's session dies for good when it is lost. This opens a new one, rotating through the URL's hosts with
back-off, subscribes again what was subscribed, and only then lets senders through. It exists once, for all
drivers. States: closed -> opening -> open <-> reopening -> closed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Capability, Driver
from rpclib.errors import (
    AccessDenied,
    CapabilityMissing,
    ConfigError,
    ConnectionLost,
    ForkError,
    TransportClosed,
    TransportError,
    Unreachable,
    again,
)
from rpclib.link import backoff
from rpclib.link.intake import Intake

if TYPE_CHECKING:  # pydantic takes a tenth of a second to import
    from rpclib.config.settings import Resolved
    from rpclib.url import TransportURL

log = logging.getLogger("rpclib")

_all: weakref.WeakSet[Connection] = weakref.WeakSet()

_CLOSE_WITHIN = 10.0
"""Seconds that a lost session has to close before the next is opened."""
_STABLE = 5.0
"""Seconds after which a session counts as good: the next loss begins with the shortest pause."""


class ConnectionObserver:
    """What a connection reports. Plain calls on the loop; they return at once and never raise."""

    def undeliverable(self, body: bytes, reason: str) -> None:
        """See `rpclib.driver.Observer`."""

    def refused(self, body: bytes, error: TransportError) -> None:
        """See `rpclib.driver.Observer`."""

    def worker_lost(self, tag: bytes) -> None:
        """See `rpclib.driver.Observer`."""

    def opened(self, driver: Driver) -> None:
        """A session is there, the first one too. What was subscribed is subscribed again."""

    def lost(self, error: TransportError) -> None:
        """The session ended. The next one is being opened."""


class _Session:
    """The events of one session; once it was replaced, what it still says is ignored."""

    def __init__(self, connection: Connection, host: str) -> None:
        self._connection = connection
        self.host = host
        self.driver: Driver | None = None
        self.error: TransportError | None = None
        self.since = _now()

    def undeliverable(self, body: bytes, reason: str) -> None:
        self._connection.observer.undeliverable(body, reason)

    def refused(self, body: bytes, error: TransportError) -> None:
        self._connection.observer.refused(body, error)

    def worker_lost(self, tag: bytes) -> None:
        self._connection.observer.worker_lost(tag)

    def blocked(self, reason: str | None) -> None:
        self._connection.blocked = reason
        if reason is None:
            log.info("%s takes messages again", self.host)
        else:
            log.warning("%s takes no messages at the moment: %s", self.host, reason)

    def lost(self, error: TransportError) -> None:
        self.error = error
        self._connection.session_lost(self, error)


class Connection:
    """Keeps one session open between `open` and `close`. ``driver`` is that session's, None while there is none.

    A session that lacks one of the capabilities in ``require`` is not used.
    """

    def __init__(self, resolved: Resolved, require: Iterable[Capability] = ()) -> None:
        self.driver: Driver | None = None
        self.blocked: str | None = None
        self.observer = ConnectionObserver()
        self.closed = True
        self._resolved = resolved
        self._require = tuple(require)
        self._urls = _urls(resolved)
        self._turn = 0
        self._intakes: list[Intake] = []
        self._session: _Session | None = None
        self._opened = asyncio.Event()
        self._reopening: asyncio.Task[None] | None = None
        self._errors: dict[str, TransportError] = {}
        self._attempts = 0
        self._last: tuple[TransportError, float] = (Unreachable("not tried"), 0.0)
        self._inherited: Driver | None = None
        self._is_child = False
        _all.add(self)

    @property
    def url(self) -> TransportURL:
        """Where it connects to; shown without its password."""
        return self._resolved.url

    @property
    def host(self) -> str:
        """Scheme and host of the session, for messages."""
        return self._urls[self._turn].origin

    async def open(self, observer: ConnectionObserver) -> None:
        """Try every host until one gives a session or ``connect_timeout`` is over. ``observer`` is told of
        this session and all later ones.

        Raises Unreachable naming every host, AccessDenied and ConfigError at once.
        """
        self.closed = False
        self.observer = observer
        limit = self._resolved.settings.connect_timeout
        try:
            async with asyncio.timeout(limit):
                await self._reopen(give_up=(AccessDenied, ConfigError))
        except TimeoutError:
            self.closed = True
            raise self.unreachable(limit) from None
        except BaseException:
            self.closed = True
            raise

    async def session(self) -> Driver:
        """The live session; waits while there is none, without a limit. Raises TransportClosed, ForkError."""
        while True:
            self._check_usable()
            if self.driver is not None:
                return self.driver
            await self._opened.wait()

    def intake(self, address: Address, *, prefetch: int, arrived: Callable[[Intake], None]) -> Intake:
        """What is sent to ``address``, for each session from the next one on; see `Intake`."""
        intake = Intake(address, prefetch, arrived, self._forget)
        self._intakes.append(intake)
        return intake

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[Intake], None]) -> Intake:
        """Receive what is sent to ``address``, over reconnects too. In effect on return; see `Intake`.

        Raises Unreachable when there is no session within ``connect_timeout``.
        """
        intake = Intake(address, prefetch, arrived, self._forget)
        limit = self._resolved.settings.connect_timeout
        while True:
            try:
                async with asyncio.timeout(limit):
                    driver = await self.session()
            except TimeoutError:
                raise self.unreachable(limit) from None
            try:
                await intake.attach(driver)
            except ConnectionLost as error:
                self.dead(driver, error)
                continue
            if driver is self.driver:
                self._intakes.append(intake)
                return intake
            intake.detach()

    def _forget(self, intake: Intake) -> None:
        if intake in self._intakes:
            self._intakes.remove(intake)

    def dead(self, driver: Driver, error: ConnectionLost) -> None:
        """A sender found the session dead, or it does not answer. Does nothing if it was replaced already."""
        if self._session is not None and self._session.driver is driver:
            self._session.lost(error)

    async def close(self, *, flush: bool = True) -> None:
        """End the session and everything that waits for one. Idempotent."""
        self.closed = True
        self._opened.set()
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
            self._reopening = None
        driver, self.driver, self._session = self.driver, None, None
        for intake in self._intakes:
            intake.detach()
        self._intakes.clear()
        if driver is not None:
            await driver.close(flush=flush)

    def forked(self) -> None:
        """This is a forked child: the session is its parent's. It is kept but never touched again."""
        self._inherited, self.driver = self.driver, None
        self._is_child = True

    def _check_capabilities(self, driver: Driver) -> None:
        missing = [item.value for item in self._require if item not in driver.capabilities]
        if missing:
            raise CapabilityMissing(f"this backend does not do {', '.join(missing)}")

    def _check_usable(self) -> None:
        if self._is_child:
            raise ForkError(
                "this transport was opened before a fork and belongs to the parent process; call connect() again "
                "in the child, or use rpclib.sync, which does so by itself"
            )
        if self.closed:
            raise TransportClosed("the transport is not open")

    def unreachable(self, seconds: float) -> Unreachable:
        reasons = "; ".join(f"{url.origin}: {self._errors.get(url.origin, 'no answer yet')}" for url in self._urls)
        return Unreachable(f"no connection to {self._resolved.url} within {seconds:.1f} s: {reasons}")

    def session_lost(self, session: _Session, error: TransportError) -> None:
        if session is not self._session or self.closed:
            return
        driver, self.driver, self._session = self.driver, None, None
        self.blocked = None
        self._opened.clear()
        for intake in self._intakes:
            intake.detach()
        if _now() - session.since > _STABLE:
            self._attempts = 0
        else:
            self._attempts += 1
            self._last = (error, 0.0)
        self._errors = {session.host: error}
        self._turn = (self._turn + 1) % len(self._urls)
        log.warning("lost the connection to %s: %s", session.host, error)
        self.observer.lost(error)
        self._reopening = asyncio.get_running_loop().create_task(self._replace(driver))

    async def _replace(self, driver: Driver | None) -> None:
        if driver is not None:
            try:
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await driver.close(flush=False)
            except TimeoutError:
                log.error("the lost session with %s did not close within %.0f s", self.host, _CLOSE_WITHIN)
            except Exception:  # whatever is wrong with it, it is over
                log.exception("the lost session with %s did not close", self.host)
        await self._reopen(give_up=())

    async def _reopen(self, give_up: tuple[type[Exception], ...]) -> None:
        while True:
            if self._attempts and self._turn == 0:
                await asyncio.sleep(backoff.delay(self._attempts, *self._last))
            host, began = self.host, _now()
            try:
                await self._open_session(self._urls[self._turn], host)
                return
            except TransportClosed:
                raise
            except give_up as error:
                raise type(error)(f"{host}: {error}") from error
            except (TransportError, ConfigError) as error:
                known = error if isinstance(error, TransportError) else Unreachable(str(error))
                self._failed(host, known, _now() - began)
            except Exception as error:
                log.exception("the driver broke its contract while connecting to %s", host)
                self._failed(host, Unreachable(f"{type(error).__name__}: {error}"), _now() - began)
            self._attempts += 1
            self._turn = (self._turn + 1) % len(self._urls)

    def _failed(self, host: str, error: TransportError, took: float) -> None:
        if str(error) != str(self._errors.get(host)):
            log.warning("cannot use %s: %s", host, error)
        self._errors[host] = error
        self._last = (error, took)

    async def _open_session(self, url: TransportURL, host: str) -> None:
        session = _Session(self, host)
        driver = await self._resolved.driver.open(url, self._resolved.options, session)
        session.driver = driver
        try:
            self._check_capabilities(driver)
            for intake in list(self._intakes):  # a server that stops meanwhile takes its own out
                await intake.attach(driver)
            if session.error is not None:
                raise again(session.error)
            self._check_usable()
        except BaseException:
            for intake in self._intakes:
                intake.detach()
            await driver.close(flush=False)
            raise
        self._session, self.driver = session, driver
        self._errors.clear()
        if self._attempts:
            log.info("connected again to %s", host)
        self._opened.set()
        self.observer.opened(driver)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _urls(resolved: Resolved) -> Sequence[TransportURL]:
    url = resolved.url
    if resolved.driver.all_hosts or len(url.hosts) < 2:
        return [url]
    return [url.with_hosts(host) for host in url.hosts]


def _after_fork() -> None:
    for connection in _all:
        connection.forked()


os.register_at_fork(after_in_child=_after_fork)
