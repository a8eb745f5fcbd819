"""What the processes of one benchmark agree on: where they meet, and how executed casts are counted."""

from __future__ import annotations

import json
import mmap
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

SLOTS = 64
_BYTES = 8


@dataclass(frozen=True)
class Place:
    """What a child process is told: which peer it is, in which role, and where it finds the others."""

    module: str
    """The file in benchmarks/peers, without its ending."""
    role: str
    """``server`` or ``client``."""
    url: str
    """The broker, or for peers without one a directory for sockets."""
    run: str
    """A token of this arrangement alone; it is part of every queue, topic and socket."""
    folder: str
    """Where the tally lies."""
    servers: int = 1
    """Server processes that share the topics."""
    index: int = 0
    """Which of the servers this one is."""
    topics: int = 1
    flags: tuple[str, ...] = ()
    """Variants of a peer, as its module understands them. ``inside``: the client's process is the server's too."""

    def topic_names(self) -> list[str]:
        return [f"{self.run}-{number}" for number in range(self.topics)]

    def socket(self, index: int) -> str:
        """The path of a server's socket, for peers without a broker."""
        return f"{self.folder}/{self.run}.{index}"

    def tally(self) -> Tally:
        return Tally(Path(self.folder) / f"{self.run}.tally")

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Place:
        fields = json.loads(text)
        return cls(**{**fields, "flags": tuple(fields["flags"])})


class Tally:
    """Executed casts, counted in memory that all processes of an arrangement share: one slot a server.

    It costs the server a tenth of a microsecond a cast, and no peer has to send anything to be counted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self) -> None:
        self.path.write_bytes(bytes(SLOTS * _BYTES))

    def counter(self, index: int) -> Callable[[], None]:
        """A function that counts one more cast of server ``index``; from any thread."""
        slots, lock = self._map(), threading.Lock()

        def count() -> None:
            with lock:
                slots[index] += 1

        return count

    def reader(self) -> Callable[[], int]:
        """A function that tells how many were executed by all servers."""
        slots = self._map()
        return lambda: sum(slots)

    def _map(self) -> memoryview:
        with self.path.open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), SLOTS * _BYTES)).cast("Q")
