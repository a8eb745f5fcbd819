"""Batches from the receiver: deliveries to subscriptions, and control records."""

from __future__ import annotations

import struct
from collections.abc import Callable
from time import monotonic

from rpclib.driverkit import Held
from rpclib_zmq.protocol.header import DELIVER, LONGEST_TRANSIT, REDELIVER
from rpclib_zmq.protocol.records import HEAD, LARGE, Broken, Record, read
from rpclib_zmq.session.subscription import ZmqSubscription

_UNPACK = struct.Struct("<BxHIIIII16x").unpack_from


class Arrivals:
    """The subscriptions of a session, by number, and the reader of batches.

    ``frame()`` returns the next large payload of the batch. ``other(record)`` gets each record that is no delivery.
    """

    def __init__(self, frame: Callable[[], bytes], other: Callable[[Record], None]) -> None:
        self.subscriptions: dict[int, ZmqSubscription] = {}
        self._frame = frame
        self._other = other

    def read(self, data: bytes) -> None:
        """Process a batch in order. Each subscriber is notified once for consecutive deliveries.

        Raises Broken for a malformed batch.
        """
        reached: list[ZmqSubscription] = []
        subscription: ZmqSubscription | None = None
        last = offset = 0
        end, now = len(data), monotonic()
        clock = int(now * 1000)
        while offset < end:
            kind, length, number, size, ttl, waited, stamped = _UNPACK(data, offset)
            if kind != DELIVER and kind != REDELIVER:
                self._notify(reached)
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
                passed = (clock - stamped) & 0xFFFFFFFF  # `header.age`, inlined
                if passed >= LONGEST_TRANSIT:
                    passed = 0
                expires = now + (ttl - passed) / 1000 if ttl else None
                subscription.held.append(Held(body, kind == REDELIVER, now - (waited + passed) / 1000, expires))
        self._notify(reached)

    def end(self) -> None:
        """End all subscriptions. Untaken messages are left to the receiver."""
        for subscription in self.subscriptions.values():
            subscription.end()
        self.subscriptions.clear()

    def _notify(self, reached: list[ZmqSubscription]) -> None:
        for subscription in reached:
            subscription.tell()
        reached.clear()
