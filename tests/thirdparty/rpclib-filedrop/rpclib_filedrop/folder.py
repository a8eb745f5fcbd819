"""The folder of one address."""

from __future__ import annotations

import fcntl
import os
import shutil
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns

from rpclib.address import Address, Kind
from rpclib.driver import Delivery
from rpclib.driverkit import address_name

ALPHABET = "~" + string.ascii_letters + string.digits + "_-.:@"


class Folder:
    """The messages and seats of one address. All but `locked` is called under the lock."""

    def __init__(self, root: Path, address: Address) -> None:
        self.path = root / address_name(address, ALPHABET, 250)
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

    def level(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        with os.scandir(self.path) as files:
            sizes = [file.stat().st_size for file in files]
        return len(sizes), sum(sizes)

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


def times(name: str) -> tuple[int, int]:
    """When a message was sent and when it expires (0: never)."""
    sent, _, _, expires = name.partition(".")[0].split("-")
    return int(sent), int(expires)
