"""A session: it sends by writing files, and keeps what it subscribed to."""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Gate, Observer, Route, Subscription
from rpclib.driverkit import Ending
from rpclib.errors import AccessDenied, ConfigError, ConnectionLost, MessageTooLarge, TransportError, Unreachable
from rpclib.url import TransportURL
from rpclib_filedrop.bound import Bound
from rpclib_filedrop.folder import Folder
from rpclib_filedrop.subscription import FiledropSubscription

log = logging.getLogger("rpclib_filedrop")

ADDRESSES = 1_000
"""Folders whose fill level a session remembers."""


class FiledropOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    poll: float = Field(0.005, gt=0, le=1, description="Seconds between two looks for new messages.")


class FiledropDriver(Driver):
    spi_version = 0
    capabilities = frozenset(
        {
            Capability.STORES,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.PEER_GONE,
            Capability.EXPIRES,
            Capability.AGES,
            Capability.ORDERED,
            Capability.EXCHANGES,
            Capability.ALL_TYPES,
            Capability.CROSS_PROCESS,
        }
    )
    options = FiledropOptions
    inbox_keys = re.compile("[0-9a-f]{16}")
    max_body = 1 << 28

    def __init__(self, root: Path, poll: float, observer: Observer) -> None:
        self.root = root
        self.poll = poll
        self.gate = Gate()  # no message is held here, so that it is never shut
        self._observer = observer
        self._ending = Ending(observer, self._let_go, log)
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._subscriptions: list[FiledropSubscription] = []
        self._bounds: dict[Address, Bound] = {}

    @classmethod
    def check(cls, url: TransportURL, options: BaseModel) -> None:
        if url.hosts or not url.path:
            raise ConfigError("a filedrop URL names a directory and no host, as in filedrop:///var/spool/rpc")

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        assert isinstance(options, FiledropOptions)
        root = Path("/", url.path or "")
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
        except PermissionError:
            raise AccessDenied("this user may not make that directory") from None
        except OSError as error:
            raise Unreachable(str(error.strerror)) from None
        return cls(root, options.poll, observer)

    def route(self, address: Address, *, must_arrive: bool = False) -> Bound:
        bound = self._bounds.get(address)
        if bound is None:
            if len(self._bounds) >= ADDRESSES:
                self._bounds = {other: bound for other, bound in self._bounds.items() if bound.gate.shut}
            bound = self._bounds[address] = Bound(Folder(self.root, address), self.poll)
        return bound

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        self._ending.check()
        if len(body) > self.max_body:
            raise MessageTooLarge(f"{len(body)} bytes; at most {self.max_body} travel")
        assert isinstance(route, Bound)
        folder = route.folder
        now = monotonic_ns()
        expires = 0 if ttl is None else now + int(ttl * 1e9)
        number = next(self._numbers)
        stamp = f"{now:020}-{number:012}-{self._name}-{expires}"
        try:
            with folder.locked():
                owners = folder.owners()
                for owner in owners:
                    folder.put(stamp, body, owner)
            route.sent(len(body))
        except FileNotFoundError as error:
            owners = []
            if not self.root.is_dir():
                raise self.lose(str(error.strerror)) from None
        except OSError as error:
            raise self.lose(str(error.strerror)) from None
        if not owners and folder.address.kind is not Kind.ALL:
            reason = f"nobody subscribes to {folder.address}"
            self._ending.tell_later(self._observer.undeliverable, body, reason)

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        self._ending.check()
        token = secrets.token_hex(8)
        if address.kind is Kind.INBOX:
            address = Address.inbox(token)
        folder = Folder(self.root, address)
        try:
            os.makedirs(folder.path, mode=0o700, exist_ok=True)
            subscription = FiledropSubscription(self, folder, token, prefetch, arrived)
        except OSError as error:
            raise self.lose(str(error.strerror)) from None
        self._subscriptions.append(subscription)
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        self._ending.check()
        folder = Folder(self.root, address)
        try:
            with folder.locked():
                return len(folder.seats())
        except FileNotFoundError:
            return 0

    async def close(self, *, flush: bool = True) -> None:
        if self._ending.close():
            self._let_go(ConnectionLost("the session was closed"))

    def sever(self) -> None:
        self.lose("severed")

    def lose(self, reason: str) -> ConnectionLost:
        """End the session by itself. Returns the error to raise for what was not done."""
        self._ending.lose(ConnectionLost(reason))
        return ConnectionLost(reason)

    def _let_go(self, error: TransportError) -> None:
        self.gate.end(error)
        for bound in self._bounds.values():
            bound.gate.end(error)
        for subscription in self._subscriptions:
            subscription.end()
