"""Messages that a session took and has not reported to the receiver."""

from __future__ import annotations

from rpclib_zmq.protocol.header import NO_TAG, TAKEN
from rpclib_zmq.protocol.records import PACK


class Taken:
    """Number and bytes of taken messages, by number of the subscription."""

    def __init__(self) -> None:
        self.unreported: dict[int, tuple[int, int]] = {}

    def records(self) -> list[bytes]:
        """Take out the records of the report."""
        if not self.unreported:
            return []
        records = [
            PACK(TAKEN, 0, number, 0, size, 0, count, NO_TAG) for number, (count, size) in self.unreported.items()
        ]
        self.unreported.clear()
        return records
