"""What a session may send again and was not told."""

from __future__ import annotations

from rpclib_zmq.header import ACCEPTED, NO_TAG
from rpclib_zmq.receiver.limits import REPORTED, REPORTED_BYTES
from rpclib_zmq.records import PACK

_ALL_LANES = 0


class Account:
    """Messages of one session that left the receiver's queues since the session was told last.

    It is told of a lane, and of all lanes together, when that is a good part of the window, and of the rest now and
    then: so a sender that has used up a window is told as its messages leave, and one that has many lanes is not
    told of each message.
    """

    def __init__(self) -> None:
        self.lanes: dict[int, list[int]] = {}
        """Messages and bytes, by lane. Whoever adds to them says so with `added`, and with `much` of a lane that
        has got to `REPORTED` messages or `REPORTED_BYTES`."""
        self._messages = 0
        self._size = 0
        self._records: list[bytes] = []

    @property
    def due(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._records)

    def add(self, lane: int, size: int) -> None:
        """One message left."""
        counts = self.lanes.get(lane) or self.lanes.setdefault(lane, [0, 0])
        counts[0] += 1
        counts[1] += size
        if counts[0] >= REPORTED or counts[1] >= REPORTED_BYTES:
            self.much(lane)
        self.added(1, size)

    def added(self, messages: int, size: int) -> None:
        self._messages += messages
        self._size += size
        if self._messages >= REPORTED or self._size >= REPORTED_BYTES:
            self._tell(_ALL_LANES, self._messages, self._size)
            self._messages = self._size = 0

    def much(self, lane: int) -> None:
        """That lane is to be told of."""
        self._tell(lane, *self.lanes.pop(lane))

    def close(self) -> None:
        """Everything is to be told."""
        for lane in list(self.lanes):
            self.much(lane)
        if self._messages:
            self._tell(_ALL_LANES, self._messages, self._size)
            self._messages = self._size = 0

    def report(self) -> list[bytes]:
        """The records that tell."""
        records, self._records = self._records, []
        return records

    def _tell(self, lane: int, messages: int, size: int) -> None:
        self._records.append(PACK(ACCEPTED, 0, lane, 0, min(size, 0xFFFFFFFF), 0, messages, NO_TAG))
