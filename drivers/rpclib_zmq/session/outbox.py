"""The outbox of a session: flow control, and messages that wait for room."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from rpclib.driver import Gate
from rpclib_zmq.protocol.header import DATA, milliseconds
from rpclib_zmq.protocol.records import PACK

if TYPE_CHECKING:
    from rpclib.errors import TransportError

_WAITING = 1000
_WAITING_BYTES = 4 * 1024 * 1024
"""Messages and bytes that may wait for one address, or for the session, before senders must wait."""
_LANES = 4
"""The window of the session, in windows of a lane."""


class Lane:
    """The messages to one address. A slow address delays no other lane.

    ``messages`` and ``size`` are the room left in the receiver. While both are positive, one more message of any
    size may be sent.
    """

    __slots__ = ("__weakref__", "gate", "messages", "number", "size", "waiting", "waiting_bytes")

    def __init__(self, number: int, messages: int, size: int) -> None:
        self.number = number
        self.messages = messages
        self.size = size
        self.waiting: deque[tuple[bytes, bytes, float | None, bytes, float]] = deque()
        self.waiting_bytes = 0
        self.gate = Gate()


class ZmqRoute:
    """The name of an address, and its lane."""

    __slots__ = ("gate", "lane", "name")

    def __init__(self, name: bytes, lane: Lane) -> None:
        self.name = name
        self.lane = lane
        self.gate = lane.gate


class Outbox:
    """Sends messages in order within each lane, while the lane and the session have room."""

    def __init__(self, emit: Callable[[bytes, bytes, bytes], None]) -> None:
        self._emit = emit
        self._numbers = itertools.count(1)
        self._lanes: WeakValueDictionary[bytes, Lane] = WeakValueDictionary()
        self._busy: dict[int, Lane] = {}
        """Lanes with messages in flight or waiting. The reference keeps a lane alive."""
        self._blocked: dict[int, Lane] = {}
        """Lanes with waiting messages."""
        self._window = 0
        self._window_bytes = 0
        self._messages = 0
        self._size = 0
        self.waiting = 0
        """Number of waiting messages in all lanes."""
        self._waiting_bytes = 0

    def open(self, messages: int, size: int) -> None:
        """Set the window of each lane."""
        self._window, self._window_bytes = messages, size
        self._messages, self._size = _LANES * messages, _LANES * size

    @property
    def full(self) -> bool:
        """Whether all senders should wait: the window of the session is used up, and many messages wait."""
        used_up = self._messages <= 0 or self._size <= 0
        return used_up and (self.waiting >= _WAITING or self._waiting_bytes >= _WAITING_BYTES)

    def route(self, name: bytes) -> ZmqRoute:
        """The route to a name. Its lane lives as long as a route, or a message in flight."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(next(self._numbers), self._window, self._window_bytes)
        return ZmqRoute(name, lane)

    def put(self, route: ZmqRoute, body: bytes, ttl: float | None, tag: bytes) -> bool:
        """Send a message, or keep it until there is room. True: all senders should wait."""
        lane = route.lane
        if not lane.waiting and lane.messages > 0 and lane.size > 0 and self._messages > 0 and self._size > 0:
            self._send(lane, route.name, body, 0 if ttl is None else milliseconds(ttl), 0, tag)
            return False
        lane.waiting.append((route.name, body, ttl, tag, monotonic()))
        self._busy[lane.number] = self._blocked[lane.number] = lane
        lane.waiting_bytes += len(body)
        self.waiting += 1
        self._waiting_bytes += len(body)
        if len(lane.waiting) >= _WAITING or lane.waiting_bytes >= _WAITING_BYTES:
            lane.gate.full(True)
        return self.full

    def end(self, error: TransportError) -> None:
        """Fail all tasks that wait for room."""
        for lane in self._lanes.values():
            lane.gate.end(error)

    def accepted(self, number: int, messages: int, size: int) -> None:
        """Open the window of a lane, or of the session if ``number`` is 0, and send waiting messages."""
        if not number:
            self._messages += messages
            self._size += size
            for blocked in list(self._blocked.values()):
                self._send_waiting(blocked)
        elif (lane := self._busy.get(number)) is not None:
            lane.messages += messages
            lane.size += size
            if lane.waiting:
                self._send_waiting(lane)
            if lane.messages == self._window and not lane.waiting:
                del self._busy[number]

    def _send_waiting(self, lane: Lane) -> None:
        waiting = lane.waiting
        while waiting and lane.messages > 0 and lane.size > 0 and self._messages > 0 and self._size > 0:
            name, body, ttl, tag, since = waiting.popleft()
            self.waiting -= 1
            self._waiting_bytes -= len(body)
            lane.waiting_bytes -= len(body)
            waited = monotonic() - since
            if ttl is None:
                self._send(lane, name, body, 0, int(waited * 1000), tag)
            elif ttl > waited:
                self._send(lane, name, body, milliseconds(ttl - waited), int(waited * 1000), tag)
        if lane.gate.shut and len(waiting) <= _WAITING // 2 and lane.waiting_bytes <= _WAITING_BYTES // 2:
            lane.gate.full(False)
        if not waiting:
            self._blocked.pop(lane.number, None)

    def _send(self, lane: Lane, name: bytes, body: bytes, ttl: int, waited: int, tag: bytes) -> None:
        size = len(body)
        if lane.messages == self._window:
            self._busy[lane.number] = lane
        lane.messages -= 1
        lane.size -= size
        self._messages -= 1
        self._size -= size
        stamped = int(monotonic() * 1000) & 0xFFFFFFFF  # `header.stamp`, inlined
        self._emit(PACK(DATA, len(name), lane.number, size, ttl, waited, stamped, tag), body, name)
