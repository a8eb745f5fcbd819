"""An rpclib driver that moves messages through files: ``filedrop:///var/spool/rpc``.

All processes that open the same directory reach each other. Each address has a folder in it, which holds

* ``TOKEN.seat`` for each subscriber, alive as long as its process holds the lock on that file;
* ``SENT-NUMBER-SENDER-EXPIRES.FOR`` for each message: times in nanoseconds of the machine's monotonic clock, FOR a
  seat's token, or ``any`` where the subscribers share what arrives.

Who reads or changes a folder holds its lock, for microseconds; a message appears whole, by a rename. Nothing is
held between the folder and `take`, so a process that dies loses only what it had taken.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic_ns
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Delivery, Driver, Events, Route, Subscription
from rpclib.errors import AccessDenied, ConnectionLost, TransportError, Unreachable
from rpclib.url import TransportURL


class FiledropOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    poll: float = Field(0.005, gt=0, le=1, description="Seconds between two looks for new messages.")


class Folder:
    """The messages and seats of one address. All but `locked` is called under the lock."""

    def __init__(self, root: Path, address: Address) -> None:
        # No name contains a comma, so the parts cannot run into each other; the longest has 247 characters.
        self.path = root / ",".join((address.kind.value, address.exchange, address.topic, address.key))
        self.address = address

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock. FileNotFoundError: nobody ever subscribed."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def owners(self) -> list[str]:
        """Who is to get a message: each a copy."""
        match self.address.kind:
            case Kind.ONE:
                return ["any"]
            case Kind.ALL:
                return self.seats()
            case Kind.INBOX:
                return ["any"] if self.seats() else []

    def put(self, stamp: str, body: bytes, owner: str) -> None:
        draft = self.path / f".{stamp}"
        draft.write_bytes(body)
        draft.rename(self.path / f"{stamp}.{owner}")

    def messages(self, owner: str) -> list[str]:
        """Names of the owner's messages, oldest first; expired ones are removed."""
        names = sorted(name for name in os.listdir(self.path) if name.endswith(f".{owner}") and name[0] != ".")
        now = monotonic_ns()
        expired = {name for name in names if 0 < times(name)[1] <= now}
        for name in expired:
            (self.path / name).unlink()
        return [name for name in names if name not in expired]

    def take(self, name: str) -> Delivery:
        body = (self.path / name).read_bytes()
        (self.path / name).unlink()
        return Delivery(body, waited=max(0, monotonic_ns() - times(name)[0]) / 1e9)

    def sit(self, token: str) -> int:
        """Add a seat; the open descriptor keeps it alive."""
        descriptor = os.open(self.path / f"{token}.seat", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def size(self) -> int:
        return len(os.listdir(self.path))

    def leave(self, token: str) -> None:
        (self.path / f"{token}.seat").unlink(missing_ok=True)

    def seats(self) -> list[str]:
        """The tokens of the living; what a dead process left is removed."""
        return [seat.stem for seat in self.path.glob("*.seat") if self._alive(seat)]

    def clear(self, token: str) -> None:
        """Remove what only the subscriber of that seat could take."""
        for path in self.path.glob(f"*.{token}"):
            path.unlink()
        if self.address.kind is Kind.INBOX:
            shutil.rmtree(self.path)

    def _alive(self, seat: Path) -> bool:
        descriptor = os.open(seat, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        self.leave(seat.stem)
        self.clear(seat.stem)
        return False


HIGH_WATER = 2_000
"""Files in one folder, above which senders wait until half of them are gone."""


def times(name: str) -> tuple[int, int]:
    """When a message was sent and when it expires (0: never)."""
    sent, _, _, expires = name.partition(".")[0].split("-")
    return int(sent), int(expires)


class FiledropDriver(Driver):
    spi_version = 0
    capabilities = frozenset(
        {
            Capability.STORES,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.EXPIRES,
            Capability.ORDERED,
            Capability.CROSS_PROCESS,
        }
    )
    options = FiledropOptions
    max_body = 1 << 28

    def __init__(self, root: Path, poll: float, events: Events) -> None:
        self.root = root
        self.poll = poll
        self._events = events
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._subscriptions: list[FiledropSubscription] = []
        self._full: Folder | None = None
        self._error: TransportError | None = None

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, events: Events) -> Self:
        assert isinstance(options, FiledropOptions)
        if url.hosts or not url.path:
            raise Unreachable("a filedrop URL names a directory and no host, as in filedrop:///var/spool/rpc")
        root = Path("/", url.path)
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
        except PermissionError:
            raise AccessDenied(f"{root}: this user may not make that directory") from None
        except OSError as error:
            raise Unreachable(f"{root}: {error.strerror}") from None
        return cls(root, options.poll, events)

    def route(self, address: Address) -> Folder:
        return Folder(self.root, address)

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        self._check()
        assert isinstance(route, Folder)
        now = monotonic_ns()
        expires = 0 if ttl is None else now + int(ttl * 1e9)
        number = next(self._numbers)
        stamp = f"{now:020}-{number:012}-{self._name}-{expires}"
        try:
            with route.locked():
                owners = route.owners()
                for owner in owners:
                    route.put(stamp, body, owner)
            if number % 100 == 99 and route.size() > HIGH_WATER:
                self.congested, self._full = True, route
        except FileNotFoundError as error:
            owners = []
            if not self.root.is_dir():
                raise self.lose(str(error.strerror)) from None
        except OSError as error:
            raise self.lose(str(error.strerror)) from None
        if not owners and route.address.kind is not Kind.ALL:
            reason = f"nobody subscribes to {route.address}"
            asyncio.get_running_loop().call_soon(self._events.undeliverable, body, reason)

    async def drain(self) -> None:
        while self._full is not None and self._full.size() > HIGH_WATER // 2:
            self._check()
            await asyncio.sleep(self.poll)
        self._check()
        self.congested, self._full = False, None

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        self._check()
        token = secrets.token_hex(8)
        if address.kind is Kind.INBOX:
            address = Address(Kind.INBOX, "", key=token)
        folder = Folder(self.root, address)
        try:
            os.makedirs(folder.path, mode=0o700, exist_ok=True)
            subscription = FiledropSubscription(self, folder, token, prefetch, arrived)
        except OSError as error:
            raise self.lose(str(error.strerror)) from None
        self._subscriptions.append(subscription)
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        self._check()
        folder = Folder(self.root, address)
        try:
            with folder.locked():
                return len(folder.seats())
        except FileNotFoundError:
            return 0

    async def close(self, *, flush: bool = True) -> None:
        self._end(ConnectionLost("the session was closed"))

    def sever(self) -> None:
        self.lose("severed")

    def lose(self, reason: str) -> TransportError:
        """End the session by itself; returns the error."""
        if self._error is None:
            error = ConnectionLost(f"{self.root}: {reason}")
            self._end(error)
            asyncio.get_running_loop().call_soon(self._events.lost, error)
        assert self._error is not None
        return self._error

    def _end(self, error: TransportError) -> None:
        if self._error is None:
            self._error = error
            for subscription in self._subscriptions:
                subscription.end()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


class FiledropSubscription(Subscription):
    """Looks into its folder every ``poll`` seconds."""

    def __init__(
        self,
        session: FiledropDriver,
        folder: Folder,
        token: str,
        prefetch: int,
        arrived: Callable[[], None],
    ) -> None:
        self.address = folder.address
        self._session = session
        self._folder = folder
        self._token = token
        self._prefetch = prefetch
        self._arrived = arrived
        self._owner = token if self.address.kind is Kind.ALL else "any"
        self._stopped = False
        self._left: set[str] = set()
        """Once stopped: the messages that may still be taken, unless another subscriber does."""
        with folder.locked():
            self._descriptor = folder.sit(token)
        self._timer = asyncio.get_running_loop().call_later(session.poll, self._look)

    @property
    def waiting(self) -> int:
        if self._stopped and not self._left:
            return 0
        try:
            with self._folder.locked():
                return len(self._names())
        except OSError as error:
            self._session.lose(str(error.strerror))
            return 0

    def take(self, limit: int) -> list[Delivery]:
        """Of what several may take, only its share: the rest is for the others to find, or the next look."""
        if self._stopped and not self._left:
            return []
        try:
            with self._folder.locked():
                names = self._names()
                if self.address.kind is Kind.ONE and not self._stopped:
                    limit = min(limit, -(-len(names) // len(self._folder.seats())))
                return [self._folder.take(name) for name in names[:limit]]
        except OSError as error:
            self._session.lose(str(error.strerror))
            return []

    async def stop(self) -> None:
        if not self._stopped:
            self._timer.cancel()
            with suppress(OSError), self._folder.locked():
                self._left.update(self._names()[: self._prefetch or None])
                self._folder.leave(self._token)
            self._stopped = True
            os.close(self._descriptor)

    async def close(self) -> None:
        self.end()

    def end(self) -> None:
        """Leave, and drop what nobody else could take."""
        if not self._stopped:
            self._stopped = True
            self._timer.cancel()
            with suppress(OSError), self._folder.locked():
                self._folder.leave(self._token)
            os.close(self._descriptor)
        self._left.clear()
        with suppress(OSError), self._folder.locked():
            self._folder.clear(self._token)

    def _look(self) -> None:
        if self.waiting:
            self._arrived()
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(self._session.poll, self._look)

    def _names(self) -> list[str]:
        names = self._folder.messages(self._owner)
        return names if not self._stopped else [name for name in names if name in self._left]
