"""Destinations: an address with its consumers and waiting messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice

from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver.limits import BACKLOG
from rpclib_zmq.receiver.message import Consumer, Message, Stats

_LOOKED_AT = 16
"""Consumers compared for one message: bounds the cost of choosing among hundreds."""


class Destination(ABC):
    """One address. A destination exists while it has consumers."""

    def __init__(self, name: bytes, stats: Stats) -> None:
        self.name = name
        self.stats = stats

    @property
    @abstractmethod
    def consumers(self) -> Iterable[Consumer]: ...

    @abstractmethod
    def add(self, consumer: Consumer) -> None:
        """Add a consumer. Call `serve` once messages can be delivered to it."""

    @abstractmethod
    def remove(self, consumer: Consumer) -> None:
        """Remove a consumer."""

    @abstractmethod
    def requeue(self, messages: list[Message], now: float) -> None:
        """Put untaken messages at the head of the queue, in order, for other consumers."""

    @abstractmethod
    def orphans(self) -> list[Message]:
        """Take out the messages that have no consumer left."""

    @abstractmethod
    def put(self, message: Message, now: float) -> bool:
        """Deliver the message, or queue it until a consumer has room. False: no consumer may get it."""

    @abstractmethod
    def serve(self, consumer: Consumer, now: float) -> None:
        """Deliver waiting messages to the consumer while it has room."""

    @abstractmethod
    def stall(self, consumer: Consumer) -> None:
        """Stop delivery to a consumer that has stopped responding, until `serve`."""

    @abstractmethod
    def queues(self) -> Iterable[deque[Message]]: ...

    def expire(self, now: float) -> None:
        """Drop expired messages."""
        for queue in self.queues():
            if any(message.expired(now) for message in queue):
                waiting = list(queue)
                queue.clear()
                queue.extend(message for message in waiting if not self._drop_expired(message, now))

    def _drop_expired(self, message: Message, now: float) -> bool:
        if not message.expired(now):
            return False
        self.stats.events["expired"] += 1
        message.release()
        return True


class Shared(Destination):
    """An address whose consumers share the messages.

    Each message goes to the least loaded consumer with room; among equals, to the least recently used.
    """

    def __init__(self, name: bytes, stats: Stats) -> None:
        super().__init__(name, stats)
        self._consumers: dict[Consumer, None] = {}
        self._ready: OrderedDict[Consumer, None] = OrderedDict()
        self._queue: deque[Message] = deque()
        self._inward: deque[Message] = deque()
        """Messages from peers. They are never sent to another peer."""

    @property
    def consumers(self) -> Iterable[Consumer]:
        return self._consumers

    def add(self, consumer: Consumer) -> None:
        self._consumers[consumer] = None

    def remove(self, consumer: Consumer) -> None:
        self._consumers.pop(consumer, None)
        self._ready.pop(consumer, None)

    def put(self, message: Message, now: float) -> bool:
        local = message.sender.local
        if local:
            queue = self._queue
        elif any(consumer.local for consumer in self._consumers):
            queue = self._inward
        else:
            return False
        if not queue:
            while (consumer := self._least_loaded(local)) is not None:
                if self._deliver(consumer, message, now):
                    return True
        message.keep()
        queue.append(message)
        return True

    def requeue(self, messages: list[Message], now: float) -> None:
        for message in reversed(messages):
            (self._queue if message.sender.local else self._inward).appendleft(message)
        for consumer in list(self._ready):
            self.serve(consumer, now)

    def orphans(self) -> list[Message]:
        orphans: list[Message] = []
        if not self._consumers:
            orphans += self._queue
            self._queue.clear()
        if not any(consumer.local for consumer in self._consumers):
            orphans += self._inward
            self._inward.clear()
        return orphans

    def serve(self, consumer: Consumer, now: float) -> None:
        if consumer not in self._consumers:
            return
        while consumer.room:
            queue = self._inward if consumer.local and self._inward else self._queue
            if not queue:
                self._ready[consumer] = None
                return
            message = queue.popleft()
            if not self._drop_expired(message, now):
                if not consumer.deliver(message, now):
                    queue.appendleft(message)
                    break
                self._ready.pop(consumer, None)
                message.release()
        self._ready.pop(consumer, None)

    def stall(self, consumer: Consumer) -> None:
        self._ready.pop(consumer, None)

    def queues(self) -> Iterable[deque[Message]]:
        return (self._queue, self._inward)

    def _least_loaded(self, anywhere: bool) -> Consumer | None:
        best, least = None, 0
        if len(self._ready) == 1 and anywhere:
            return next(iter(self._ready))
        for consumer in islice(self._ready, _LOOKED_AT):
            if anywhere or consumer.local:
                load = consumer.load
                if not load:
                    return consumer
                if best is None or load < least:
                    best, least = consumer, load
        return best

    def _deliver(self, consumer: Consumer, message: Message, now: float) -> bool:
        """Deliver, and move the consumer to the end of the order of use. False: the consumer is gone."""
        if not consumer.deliver(message, now):
            self._ready.pop(consumer, None)
            return False
        if not consumer.room:
            self._ready.pop(consumer, None)
        elif len(self._ready) > 1:
            self._ready.move_to_end(consumer)
        return True


class Everyone(Destination):
    """An address whose consumers each get every message.

    Each consumer has its own queue, so that a slow consumer delays no other. The queue of a stalled consumer keeps
    the newest messages up to a limit; the others are dropped and counted.
    """

    def __init__(self, name: bytes, stats: Stats) -> None:
        super().__init__(name, stats)
        self._consumers: dict[Consumer, deque[Message]] = {}

    @property
    def consumers(self) -> Iterable[Consumer]:
        return self._consumers

    def add(self, consumer: Consumer) -> None:
        self._consumers[consumer] = deque()

    def remove(self, consumer: Consumer) -> None:
        for message in self._consumers.pop(consumer, ()):
            message.release()

    def requeue(self, messages: list[Message], now: float) -> None:
        """Does nothing: every other consumer has its own copy."""

    def orphans(self) -> list[Message]:
        return []

    def put(self, message: Message, now: float) -> bool:
        for consumer, queue in self._consumers.items():
            meant = message.sender.local or consumer.local
            if meant and (queue or not consumer.room or not consumer.deliver(message, now)):
                self._keep(consumer, queue, message)
        return True

    def serve(self, consumer: Consumer, now: float) -> None:
        queue = self._consumers.get(consumer)
        while queue and consumer.room:
            message = queue.popleft()
            if not self._drop_expired(message, now):
                consumer.deliver(message, now)
                message.release()

    def stall(self, consumer: Consumer) -> None:
        for message in self._consumers.get(consumer, ()):
            message.release()

    def queues(self) -> Iterable[deque[Message]]:
        return self._consumers.values()

    def _keep(self, consumer: Consumer, queue: deque[Message], message: Message) -> None:
        queue.append(message)
        if not consumer.stalled:
            message.keep()
        elif len(queue) > BACKLOG:
            queue.popleft()
            self.stats.events["missed"] += 1


class Inbox(Everyone):
    """The reply address of one subscription. Messages that wait when it ends go back to their senders."""

    def __init__(self, name: bytes, stats: Stats) -> None:
        super().__init__(name, stats)
        self._left: list[Message] = []

    def remove(self, consumer: Consumer) -> None:
        self._left += self._consumers.pop(consumer, ())

    def orphans(self) -> list[Message]:
        orphans, self._left = self._left, []
        return orphans

    def forward(self, content: bytes, frame: Frame | None, size: int) -> bool:
        """Deliver without making a `Message`, which only queueing needs. False: use `put`."""
        if len(self._consumers) != 1:
            return False
        [(consumer, queue)] = self._consumers.items()
        return not queue and consumer.room and consumer.forward(content, frame, size)
