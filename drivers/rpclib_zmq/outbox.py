"""How much a session may send, and what waits until it may send more."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from time import monotonic
from weakref import WeakValueDictionary

from rpclib_zmq.header import DATA, INBOX, MAGIC, PACK, milliseconds, stamp

_WAITING = 1000
_WAITING_BYTES = 4 * 1024 * 1024
_LANES = 4
"""Full lanes that fit into the window of the session as a whole."""


class Window:
    """Room for messages in the receiver: while there is any, one more may go, however long it is."""

    __slots__ = ("messages", "size")

    def __init__(self, messages: int, size: int) -> None:
        self.messages = messages
        self.size = size

    @property
    def open(self) -> bool:
        return self.messages > 0 and self.size > 0

    def change(self, messages: int, size: int) -> None:
        self.messages += messages
        self.size += size


class Lane:
    """The messages to one address, or to all inboxes: what is slow there waits here and holds up no other lane."""

    __slots__ = ("__weakref__", "number", "out", "waiting", "window")

    def __init__(self, number: int, window: Window) -> None:
        self.number = number
        self.window = window
        self.out = 0
        """Messages that wait in the receiver."""
        self.waiting: deque[tuple[bytes, bytes, float | None, bytes, float]] = deque()


class Outbox:
    """Messages in order within their lane, sent while the lane's window and the session's have room."""

    def __init__(self, transmit: Callable[[bytes, bytes], None]) -> None:
        self._transmit = transmit
        self._numbers = itertools.count(1)
        self._lanes: WeakValueDictionary[bytes, Lane] = WeakValueDictionary()
        self._busy: dict[int, Lane] = {}
        """Lanes with something on its way, which keeps them alive."""
        self._lane_window = (0, 0)
        self._window = Window(0, 0)
        self.waiting = 0
        """Messages that were not sent yet."""
        self._waiting_bytes = 0

    def open(self, messages: int, size: int) -> None:
        """The receiver takes that much for each lane."""
        self._lane_window = (messages, size)
        self._window.change(_LANES * messages, _LANES * size)

    @property
    def full(self) -> bool:
        """Whether senders had better wait."""
        return self.waiting >= _WAITING or self._waiting_bytes >= _WAITING_BYTES

    def lane(self, name: bytes) -> Lane:
        """The lane for a name; it lives while the caller keeps it or something is on its way."""
        key = name if name[0] != INBOX else b"I"
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(next(self._numbers), Window(*self._lane_window))
        return lane

    def put(self, lane: Lane, name: bytes, body: bytes, ttl: float | None, tag: bytes) -> None:
        """Send a message, or keep it until there is room."""
        if lane.window.open and self._window.open and not lane.waiting:
            head = PACK(MAGIC, DATA, milliseconds(ttl), 0, lane.number, stamp(monotonic()), tag)
            self._send(lane, head + name, body)
        else:
            lane.waiting.append((name, body, ttl, tag, monotonic()))
            self._busy[lane.number] = lane
            self.waiting += 1
            self._waiting_bytes += len(body)

    def accepted(self, number: int, messages: int, size: int) -> None:
        """That much of a lane left the receiver's queues: send what waits."""
        lane = self._busy.get(number)
        if lane is None:
            return
        lane.out -= messages
        lane.window.change(messages, size)
        self._window.change(messages, size)
        if self.waiting:
            for other in (lane, *self._busy.values()):
                self._flush(other)
        if not lane.out and not lane.waiting:
            del self._busy[number]

    def _flush(self, lane: Lane) -> None:
        now = monotonic()
        while lane.waiting and lane.window.open and self._window.open:
            name, body, ttl, tag, since = lane.waiting.popleft()
            self.waiting -= 1
            self._waiting_bytes -= len(body)
            waited = now - since
            if ttl is not None:
                ttl -= waited
                if ttl <= 0:
                    continue
            head = PACK(MAGIC, DATA, milliseconds(ttl), int(waited * 1000), lane.number, stamp(now), tag)
            self._send(lane, head + name, body)

    def _send(self, lane: Lane, head: bytes, body: bytes) -> None:
        self._busy[lane.number] = lane
        lane.out += 1
        lane.window.change(-1, -len(body))
        self._window.change(-1, -len(body))
        self._transmit(head, body)
