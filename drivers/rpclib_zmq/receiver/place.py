"""Places: an address somebody subscribes to, with its takers and the messages that wait for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice

from rpclib_zmq.receiver.limits import BACKLOG
from rpclib_zmq.receiver.message import Message, Taker, Tally
from rpclib_zmq.zmtp import Frame

_LOOKED_AT = 16
"""Takers compared for one message: bounds the cost of choosing among hundreds."""


class Place(ABC):
    """One address. It exists while it has takers."""

    def __init__(self, name: bytes, tally: Tally) -> None:
        self.name = name
        self.tally = tally

    @property
    @abstractmethod
    def takers(self) -> Iterable[Taker]: ...

    @abstractmethod
    def add(self, taker: Taker) -> None:
        """Take part from now on. The caller calls `serve` when the taker can be handed messages."""

    @abstractmethod
    def remove(self, taker: Taker) -> None:
        """Take part no longer."""

    @abstractmethod
    def put_back(self, messages: list[Message], now: float) -> None:
        """Give messages that a taker was handed and did not take, in order, to others before all that wait."""

    @abstractmethod
    def orphans(self) -> list[Message]:
        """Take out the messages that no taker is left for."""

    @abstractmethod
    def put(self, message: Message, now: float) -> bool:
        """Hand over the message, or keep it until a taker has room. False: no taker may have it."""

    @abstractmethod
    def serve(self, taker: Taker, now: float) -> None:
        """Hand the taker what waits for it, as far as it has room."""

    @abstractmethod
    def stall(self, taker: Taker) -> None:
        """The taker has stopped responding; `serve` ends that."""

    @abstractmethod
    def queues(self) -> Iterable[deque[Message]]: ...

    def expire(self, now: float) -> None:
        """Drop what is worthless by now."""
        for queue in self.queues():
            if any(message.expired(now) for message in queue):
                waiting = list(queue)
                queue.clear()
                queue.extend(message for message in waiting if not self._drop_expired(message, now))

    def _drop_expired(self, message: Message, now: float) -> bool:
        if not message.expired(now):
            return False
        self.tally.events["expired"] += 1
        message.release()
        return True


class Shared(Place):
    """An address whose takers share the messages: each goes to one.

    It goes to the least loaded taker with room; among equals to the one unused for longest.
    """

    def __init__(self, name: bytes, tally: Tally) -> None:
        super().__init__(name, tally)
        self._takers: dict[Taker, None] = {}
        self._ready: OrderedDict[Taker, None] = OrderedDict()
        self._queue: deque[Message] = deque()
        self._inward: deque[Message] = deque()
        """What peers passed on, which never travels to another peer."""

    @property
    def takers(self) -> Iterable[Taker]:
        return self._takers

    def add(self, taker: Taker) -> None:
        self._takers[taker] = None

    def remove(self, taker: Taker) -> None:
        self._takers.pop(taker, None)
        self._ready.pop(taker, None)

    def put(self, message: Message, now: float) -> bool:
        local = message.sender.local
        if local:
            queue = self._queue
        elif any(taker.local for taker in self._takers):
            queue = self._inward
        else:
            return False
        if not queue:
            while (taker := self._least_loaded(local)) is not None:
                if self._hand(taker, message, now):
                    return True
        message.keep()
        queue.append(message)
        return True

    def put_back(self, messages: list[Message], now: float) -> None:
        for message in reversed(messages):
            (self._queue if message.sender.local else self._inward).appendleft(message)
        for taker in list(self._ready):
            self.serve(taker, now)

    def orphans(self) -> list[Message]:
        orphans: list[Message] = []
        if not self._takers:
            orphans += self._queue
            self._queue.clear()
        if not any(taker.local for taker in self._takers):
            orphans += self._inward
            self._inward.clear()
        return orphans

    def serve(self, taker: Taker, now: float) -> None:
        if taker not in self._takers:
            return
        while taker.room:
            queue = self._inward if taker.local and self._inward else self._queue
            if not queue:
                self._ready[taker] = None
                return
            message = queue.popleft()
            if not self._drop_expired(message, now):
                if not taker.hand(message, now):
                    queue.appendleft(message)
                    break
                self._ready.pop(taker, None)
                message.release()
        self._ready.pop(taker, None)

    def stall(self, taker: Taker) -> None:
        self._ready.pop(taker, None)

    def queues(self) -> Iterable[deque[Message]]:
        return (self._queue, self._inward)

    def _least_loaded(self, anywhere: bool) -> Taker | None:
        best, least = None, 0
        if len(self._ready) == 1 and anywhere:
            return next(iter(self._ready))
        for taker in islice(self._ready, _LOOKED_AT):
            if anywhere or taker.local:
                load = taker.load
                if not load:
                    return taker
                if best is None or load < least:
                    best, least = taker, load
        return best

    def _hand(self, taker: Taker, message: Message, now: float) -> bool:
        """Hand over, and keep the order of use. False: the taker is gone."""
        if not taker.hand(message, now):
            self._ready.pop(taker, None)
            return False
        if not taker.room:
            self._ready.pop(taker, None)
        elif len(self._ready) > 1:
            self._ready.move_to_end(taker)
        return True


class Everyone(Place):
    """An address whose takers each get every message, in a queue of their own: a slow one holds up no other.

    A stalled taker is not waited for: what it has room for is kept, then the oldest is given up and counted.
    """

    def __init__(self, name: bytes, tally: Tally) -> None:
        super().__init__(name, tally)
        self._takers: dict[Taker, deque[Message]] = {}

    @property
    def takers(self) -> Iterable[Taker]:
        return self._takers

    def add(self, taker: Taker) -> None:
        self._takers[taker] = deque()

    def remove(self, taker: Taker) -> None:
        for message in self._takers.pop(taker, ()):
            message.release()

    def put_back(self, messages: list[Message], now: float) -> None:
        """Nothing: the others have had theirs."""

    def orphans(self) -> list[Message]:
        return []

    def put(self, message: Message, now: float) -> bool:
        for taker, queue in self._takers.items():
            meant = message.sender.local or taker.local
            if meant and (queue or not taker.room or not taker.hand(message, now)):
                self._keep(taker, queue, message)
        return True

    def serve(self, taker: Taker, now: float) -> None:
        queue = self._takers.get(taker)
        while queue and taker.room:
            message = queue.popleft()
            if not self._drop_expired(message, now):
                taker.hand(message, now)
                message.release()

    def stall(self, taker: Taker) -> None:
        for message in self._takers.get(taker, ()):
            message.release()

    def queues(self) -> Iterable[deque[Message]]:
        return self._takers.values()

    def _keep(self, taker: Taker, queue: deque[Message], message: Message) -> None:
        queue.append(message)
        if not taker.stalled:
            message.keep()
        elif len(queue) > BACKLOG:
            queue.popleft()
            self.tally.events["missed"] += 1


class Inbox(Everyone):
    """The address of one subscription's replies. What waits when it goes comes back to its sender."""

    def __init__(self, name: bytes, tally: Tally) -> None:
        super().__init__(name, tally)
        self._left: list[Message] = []

    def remove(self, taker: Taker) -> None:
        self._left += self._takers.pop(taker, ())

    def orphans(self) -> list[Message]:
        orphans, self._left = self._left, []
        return orphans

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        """Hand over what need not wait, without making it a message: once it is sent, nobody asks for it again.
        False: it has to be `put`."""
        if len(self._takers) != 1:
            return False
        [(taker, queue)] = self._takers.items()
        return not queue and taker.room and taker.forward(content, frame, size)
