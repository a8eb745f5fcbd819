"""What a session may send again and was not told."""

from __future__ import annotations

from rpclib_zmq.header import ACCEPTED, NO_TAG
from rpclib_zmq.receiver.limits import REPORTED, REPORTED_BYTES
from rpclib_zmq.records import PACK


class Account:
    """Messages of one session that left the receiver's queues since the session was told last."""

    def __init__(self) -> None:
        self.lanes: dict[int, list[int]] = {}
        """Messages and bytes, by lane. Whoever adds to them says so with `added`."""
        self._messages = 0
        self._size = 0

    def add(self, lane: int, size: int) -> None:
        """One message left."""
        counts = self.lanes.get(lane) or self.lanes.setdefault(lane, [0, 0])
        counts[0] += 1
        counts[1] += size
        self.added(1, size)

    def added(self, messages: int, size: int) -> None:
        self._messages += messages
        self._size += size

    @property
    def due(self) -> bool:
        """Whether it is time to tell: a sender that waits for room must not wait for more of its messages."""
        return self._messages >= REPORTED or self._size >= REPORTED_BYTES

    def report(self) -> list[bytes]:
        """The records that tell, and a new page."""
        records = [
            PACK(ACCEPTED, 0, lane, 0, min(size, 0xFFFFFFFF), 0, messages, NO_TAG)
            for lane, (messages, size) in self.lanes.items()
        ]
        self.lanes.clear()
        self._messages = self._size = 0
        return records
