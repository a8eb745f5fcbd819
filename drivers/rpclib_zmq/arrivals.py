"""What arrives in a session: deliveries to its subscriptions, and everything else the receiver says."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic

from rpclib.driverkit import Held
from rpclib_zmq.header import DELIVER, LONGEST_TRANSIT, REDELIVER
from rpclib_zmq.records import HEAD, LARGE, Broken, Record, read
from rpclib_zmq.subscription import ZmqSubscription

_UNPACK = struct.Struct("<BxHIIIII16x").unpack_from


class Arrivals:
    """The subscriptions of a session by number, and the batches that come for them.

    ``frame()`` gives the next large payload of the batch, ``other(record)`` gets what is no delivery.
    """

    def __init__(self, frame: Callable[[], bytes], other: Callable[[Record], None]) -> None:
        self.subscriptions: dict[int, ZmqSubscription] = {}
        self._frame = frame
        self._other = other

    def read(self, data: bytes) -> None:
        """Take in a batch, in its order. A subscriber is told once for what came together.

        Raises Broken for a batch that is none.
        """
        reached: list[ZmqSubscription] = []
        subscription: ZmqSubscription | None = None
        last = offset = 0
        end, now = len(data), monotonic()
        clock = int(now * 1000)
        while offset < end:
            kind, length, number, size, ttl, waited, stamped = _UNPACK(data, offset)
            if kind != DELIVER and kind != REDELIVER:
                self._tell(reached)
                record, offset = read(data, offset)
                self._other(record if size < LARGE else record._replace(payload=self._frame()))
                last = 0
                continue
            start = offset + HEAD
            if size < LARGE:
                offset = start + size + length
                body = data[start : start + size]
            else:
                offset = start + length
                body = self._frame()
            if offset > end:
                raise Broken("a record is longer than its batch")
            if number != last:
                last, subscription = number, self.subscriptions.get(number)
                if subscription is not None:
                    reached.append(subscription)
            if subscription is not None:
                passed = (clock - stamped) & 0xFFFFFFFF  # as `header.age` has it, without the call
                if passed >= LONGEST_TRANSIT:
                    passed = 0
                expires = now + (ttl - passed) / 1000 if ttl else None
                subscription.held.append(Held(body, kind == REDELIVER, now - (waited + passed) / 1000, expires))
        self._tell(reached)

    def end(self) -> None:
        """The session is over, or ending: what was not taken is the receiver's."""
        for subscription in self.subscriptions.values():
            subscription.end()
        self.subscriptions.clear()

    def _tell(self, reached: list[ZmqSubscription]) -> None:
        for subscription in reached:
            subscription.tell()
        reached.clear()
