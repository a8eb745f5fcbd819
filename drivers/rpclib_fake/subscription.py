"""One subscriber of the in-memory hub."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from rpclib.address import Address
from rpclib.driver import Delivery, Subscription
from rpclib.errors import TransportClosed, TransportError
from rpclib_fake.hub import Message

if TYPE_CHECKING:
    from rpclib_fake.driver import FakeDriver


class FakeSubscription(Subscription):
    """Holds up to ``prefetch`` messages that were not taken; the rest waits in the hub."""

    def __init__(self, session: FakeDriver, address: Address, prefetch: int) -> None:
        self.address = address
        self.session = session
        self.queue = session.hub.queue(address)
        self.buffer: deque[Message] = deque()
        self.prefetch = prefetch or sys.maxsize
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None

    def put(self, message: Message, loop: asyncio.AbstractEventLoop) -> None:
        """Add a message; called under the hub's lock, in the thread of ``loop``."""
        self.buffer.append(message)
        if self._waiter is not None:
            if loop is self.session.loop:
                self._wake()
            else:
                self.session.from_elsewhere(self._wake)

    async def ready(self) -> None:
        while not self.buffer:
            if self._error is not None:
                raise self._error
            self._waiter = self.session.loop.create_future()
            try:
                if not self.buffer:  # another thread may have put one before it could see the waiter
                    await self._waiter
            finally:
                self._waiter = None

    def take(self, limit: int) -> list[Delivery]:
        taken: list[Delivery] = []
        hub, owed, now = self.session.hub, self.session.owed, monotonic()
        with hub.lock:
            while self.buffer and len(taken) < limit:
                message = self.buffer.popleft()
                if message.expires is None or now < message.expires:
                    if message.tag:
                        owed[message.tag] = message.sender
                    taken.append(Delivery(message.body, message.redelivered, now - message.sent))
                if not self.buffer and self.queue.waiting and self._error is None:
                    hub.refill(self)
            if self.queue.waiting and self._error is None:
                hub.refill(self)
        return taken

    async def stop(self) -> None:
        with self.session.hub.lock:
            self.session.hub.unsubscribe(self)
        self.end(TransportClosed(f"no longer subscribed to {self.address}"))

    async def close(self) -> None:
        await self.stop()
        self.give_back()

    def end(self, error: TransportError) -> None:
        """Nothing more arrives; wake the waiter."""
        if self._error is None:
            self._error = error
        self._wake()

    def give_back(self) -> None:
        hub = self.session.hub
        with hub.lock:
            messages = list(self.buffer)
            self.buffer.clear()
            hub.give_back(self.queue, messages, self.session.loop)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
