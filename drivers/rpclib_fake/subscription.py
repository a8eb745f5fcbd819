"""One subscriber of the in-memory hub."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Delivery, Subscription
from rpclib_fake.hub import Message

if TYPE_CHECKING:
    from rpclib_fake.driver import FakeDriver


class FakeSubscription(Subscription):
    """Holds up to ``prefetch`` messages that were not taken; the rest waits in the hub."""

    def __init__(self, session: FakeDriver, address: Address, prefetch: int, arrived: Callable[[], None]) -> None:
        self.address = address
        self.session = session
        self.queue = session.hub.queue(address)
        self.buffer: deque[Message] = deque()
        self.prefetch = prefetch or sys.maxsize
        self._arrived = arrived
        self._telling = False

    @property
    def waiting(self) -> int:
        return len(self.buffer)

    def put(self, message: Message, loop: asyncio.AbstractEventLoop) -> None:
        """Add a message; called under the hub's lock, in the thread of ``loop``."""
        self.buffer.append(message)
        if not self._telling:
            self._telling = True
            if loop is self.session.loop:
                loop.call_soon(self._tell)
            else:
                self.session.from_elsewhere(self._tell)

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        buffer, queue, owed, now = self.buffer, self.queue, self.session.owed, monotonic()
        with self.session.hub.lock:
            while buffer and len(taken) < limit:
                message = buffer.popleft()
                if message.expires is None or now < message.expires:
                    message.waited = now - message.sent
                    if message.tag:
                        owed[message.tag] = message.sender
                    taken.append(message)
                if queue.waiting and self in queue.subscriptions:
                    self.session.hub.refill(self)
        return taken

    async def stop(self) -> None:
        with self.session.hub.lock:
            self.session.hub.unsubscribe(self)

    async def close(self) -> None:
        await self.stop()
        self.give_back()

    def give_back(self) -> None:
        hub = self.session.hub
        with hub.lock:
            messages = list(self.buffer)
            self.buffer.clear()
            hub.give_back(self.queue, messages, self.session.loop)

    def _tell(self) -> None:
        self._telling = False
        self._arrived()
