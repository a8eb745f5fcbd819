"""What everybody who sends or receives over one transport shares."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from time import monotonic

from rpclib.driver import Driver
from rpclib.driverkit.clock import clock_of
from rpclib.errors import BadEnvelope, MessageTooLarge
from rpclib.link.connection import Connection
from rpclib.link.counters import Counters
from rpclib.link.inbox import Inbox
from rpclib.memory import LONG, keep_freed
from rpclib.wire.kinds import MAX_BODY

log = logging.getLogger("rpclib")


_BLOCK = 4096
"""Random bytes that are fetched at once: a system call for each id would cost more than the rest of it."""


class Ids:
    """Message ids of one transport: 16 bytes each. The first 8 are random and the same in all ids of the transport,
    the last 8 are random in each id.

    An id is the secret of a call: an answer counts if it has the id, so no server that was called once may be able
    to guess the ids of other calls.
    """

    __slots__ = ("_prefix", "next")

    def __init__(self) -> None:
        self._prefix = os.urandom(8)
        self.next: Callable[[], bytes] = _random_ids(self._prefix).__next__
        """Returns an id that was never used."""

    def mine(self, id: bytes) -> bool:
        """Whether ``id`` was made here."""
        return id[:8] == self._prefix


def _random_ids(prefix: bytes) -> Iterator[bytes]:
    while True:
        block = os.urandom(_BLOCK)
        for start in range(0, _BLOCK, 8):
            yield prefix + block[start : start + 8]


class Link:
    """One transport's connection, inbox, ids, clock, limits and counters."""

    __slots__ = (
        "_was_open",
        "caller",
        "connection",
        "counters",
        "ids",
        "inbox",
        "is_inbox_key",
        "loop",
        "max_body",
        "now",
        "short",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.counters = Counters()
        self.inbox = Inbox(self.bad_envelope)
        self.ids = Ids()
        self._was_open = False
        self.caller = f"{socket.gethostname()}:{os.getpid()}"
        self.loop: asyncio.AbstractEventLoop
        """The loop that opened the transport."""
        self.now: Callable[[], float] = monotonic
        """The clock of all deadlines and ages: the time of the loop."""
        self.max_body = MAX_BODY
        """The longest envelope that can be sent, in bytes."""
        self.is_inbox_key: Callable[[str], object] = bool
        """Whether a text looks like the key of an inbox of this driver."""
        self.short = LONG
        """Bytes up to which an envelope is neither long (see `rpclib.memory`) nor too long."""

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use ``loop`` and its clock from now on."""
        self.loop = loop
        self.now = clock_of(loop)

    def opened(self, driver: Driver) -> None:
        """A session was opened, the first one or a later one."""
        self.max_body = min(MAX_BODY, driver.max_body)
        self.short = min(LONG, self.max_body)
        self.is_inbox_key = driver.inbox_keys.fullmatch
        self.inbox.opened()
        if self._was_open:
            self.counters.reconnects += 1
        self._was_open = True

    def long(self, body: bytes, what: str) -> None:
        """Prepare for an envelope that is longer than `short`. ``what`` names its content.

        Raises MessageTooLarge beyond `max_body`.
        """
        keep_freed()
        if len(body) > self.max_body:
            scheme = self.connection.url.scheme
            raise MessageTooLarge(
                f"{what} would make a message of {len(body)} bytes; {scheme}:// carries at most {self.max_body}. "
                "Send less, or a reference"
            )

    def bad_envelope(self, error: BadEnvelope) -> None:
        """Count and log a message that is dropped because it does not parse."""
        self.counters.bad_envelopes += 1
        log.warning("dropped a message: %s", error)
