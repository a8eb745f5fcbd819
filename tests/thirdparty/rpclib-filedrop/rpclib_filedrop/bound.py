"""How much may wait in the folder of an address."""

from __future__ import annotations

import asyncio

from rpclib.driver import Gate
from rpclib_filedrop.folder import Folder

HIGH_WATER = 2_000
HIGH_WATER_BYTES = 8 * 1024 * 1024
"""Files in one folder, and their bytes, with which senders wait until half of them are gone."""
LOOK_AFTER = 100
LOOK_AFTER_BYTES = 1024 * 1024
"""Messages, or bytes, sent to one address after which its folder is looked at."""


class Bound:
    """One session's view of how full a folder is, and the route to it."""

    def __init__(self, folder: Folder, poll: float) -> None:
        self.folder = folder
        self.gate = Gate()
        self._poll = poll
        self._sent = 0
        self._sent_bytes = 0

    def sent(self, size: int) -> None:
        """A message more went there."""
        self._sent += 1
        self._sent_bytes += size
        if not self.gate.shut and (self._sent >= LOOK_AFTER or self._sent_bytes >= LOOK_AFTER_BYTES):
            self._sent = self._sent_bytes = 0
            self._look()

    def _look(self) -> None:
        """Shut the gate if the folder is full, and then look again until half of it is gone."""
        half = 2 if self.gate.shut else 1
        try:
            with self.folder.locked():
                count, size = self.folder.level()
        except FileNotFoundError:  # it was an inbox
            count = size = 0
        self.gate.full(count >= HIGH_WATER // half or size >= HIGH_WATER_BYTES // half)
        if self.gate.shut:
            asyncio.get_running_loop().call_later(self._poll, self._look)
