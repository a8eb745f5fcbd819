"""Receiving: a look into the folder now and then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from rpclib.address import Kind
from rpclib.driver import Delivery, Subscription
from rpclib_filedrop.folder import Folder

if TYPE_CHECKING:
    from rpclib_filedrop.driver import FiledropDriver


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
        if self.waiting and not self._stopped:  # looking may have ended the session
            self._arrived()
        if not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(self._session.poll, self._look)

    def _names(self) -> list[str]:
        names = self._folder.messages(self._owner)
        return names if not self._stopped else [name for name in names if name in self._left]
