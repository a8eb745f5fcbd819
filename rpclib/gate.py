"""Back-pressure, as drivers tell it and senders wait for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rpclib.errors import ConnectionLost

if TYPE_CHECKING:
    from rpclib.errors import TransportError


class Gate:
    """Whether messages may come that a buffer would have to hold, and the wait until they may.

    A driver has one for the session, `Driver.gate`, and one for each address, `Route.gate`, which may be the
    same. It shuts a gate at the latest when 10,000 messages or 16 MiB wait behind it, whichever is first, and the
    message that makes it so much; for a gate that stands for several addresses ten times as much. It opens the
    gate when a good part of them is gone.
    """

    __slots__ = ("__weakref__", "_error", "_opened", "shut")

    def __init__(self) -> None:
        self.shut = False
        """Read before each message; everything else is for when it is True."""
        self._opened: asyncio.Event | None = None
        self._error: TransportError | None = None

    def full(self, on: bool) -> None:
        """Shut the gate, or open it and wake all who wait. Without effect after `end`."""
        if self._error is None:
            self.shut = on
            if not on:
                self._wake()

    async def room(self) -> None:
        """Return when the gate is not shut. Any number of tasks may wait, and each may be cancelled; each bounds
        its own wait. Raises ConnectionLost, a new one for each, once `end` was called."""
        while self.shut:
            if self._opened is None:
                self._opened = asyncio.Event()
            await self._opened.wait()
        if self._error is not None:
            raise ConnectionLost(str(self._error))

    def end(self, error: TransportError) -> None:
        """The session is dead: the gate is open for ever, so that senders go on to `Driver.send`, which raises."""
        if self._error is None:
            self._error = error
            self.shut = False
            self._wake()

    def _wake(self) -> None:
        if self._opened is not None:
            self._opened.set()
            self._opened = None
