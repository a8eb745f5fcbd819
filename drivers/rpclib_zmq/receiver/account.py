"""Report of messages that left the queues, for the session that sent them."""

from __future__ import annotations

from rpclib_zmq.protocol.header import ACCEPTED, NO_TAG
from rpclib_zmq.protocol.records import PACK
from rpclib_zmq.receiver.limits import REPORTED, REPORTED_BYTES

_ALL_LANES = 0


class Account:
    """Messages of one session that left the queues of the receiver since the last report.

    A lane, and all lanes together, are reported when a good part of the window has left, and the rest at each tick.
    A sender with a full window gets its report in time, and a sender with many lanes gets no report for each
    message.
    """

    def __init__(self) -> None:
        self.lanes: dict[int, list[int]] = {}
        """Messages and bytes, by lane. Code that adds to them calls `added`, and `report_lane` for a lane
        that has reached `REPORTED` messages or `REPORTED_BYTES`."""
        self._messages = 0
        self._size = 0
        self._records: list[bytes] = []

    @property
    def due(self) -> bool:
        """Whether a report is to be sent."""
        return bool(self._records)

    def add(self, lane: int, size: int) -> None:
        """Count one message of a lane that left the queues."""
        counts = self.lanes.get(lane) or self.lanes.setdefault(lane, [0, 0])
        counts[0] += 1
        counts[1] += size
        if counts[0] >= REPORTED or counts[1] >= REPORTED_BYTES:
            self.report_lane(lane)
        self.added(1, size)

    def added(self, messages: int, size: int) -> None:
        """Count messages for all lanes together."""
        self._messages += messages
        self._size += size
        if self._messages >= REPORTED or self._size >= REPORTED_BYTES:
            self._report(_ALL_LANES, self._messages, self._size)
            self._messages = self._size = 0

    def report_lane(self, lane: int) -> None:
        """Add a lane to the report."""
        self._report(lane, *self.lanes.pop(lane))

    def report_all(self) -> None:
        """Add everything to the report."""
        for lane in list(self.lanes):
            self.report_lane(lane)
        if self._messages:
            self._report(_ALL_LANES, self._messages, self._size)
            self._messages = self._size = 0

    def take_records(self) -> list[bytes]:
        """Take out the records of the report."""
        records, self._records = self._records, []
        return records

    def _report(self, lane: int, messages: int, size: int) -> None:
        self._records.append(PACK(ACCEPTED, 0, lane, 0, min(size, 0xFFFFFFFF), 0, messages, NO_TAG))
