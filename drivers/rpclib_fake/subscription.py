"""A subscription at the in-memory hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from rpclib.address import Address
from rpclib.driver import Delivery
from rpclib.driverkit import ReceiveBuffer
from rpclib_fake.hub import Hub, Message, Session


class Owner(Session, Protocol):
    """The part of a session that a subscription uses."""

    hub: Hub
    owed: dict[bytes, Session]

    def from_elsewhere(self, function: Callable[..., object], *args: Any) -> None: ...

    def forget(self, subscription: FakeSubscription) -> None: ...


class FakeSubscription(ReceiveBuffer):
    """A subscription. It holds up to ``prefetch`` untaken messages; further messages wait in the hub."""

    def __init__(self, session: Owner, address: Address, prefetch: int, arrived: Callable[[], None]) -> None:
        super().__init__(address, prefetch, arrived)
        self.session = session
        self.queue = session.hub.queue(address)

    def hand(self, message: Message, sender: Session) -> None:
        """Add a message. Called with the lock of the hub held, in the thread of ``sender``."""
        self.held.append(message)
        if not self._telling:
            self._telling = True
            if sender.loop is self._loop:
                self._loop.call_soon(self.tell)
            else:
                self.session.from_elsewhere(self.tell)

    def left(self, taken: list[Delivery], count: int, size: int) -> None:
        owed, hub = self.session.owed, self.session.hub
        for message in taken:
            assert isinstance(message, Message)
            if message.tag:
                owed[message.tag] = message.sender
        level, together = self.queue.level, hub.level
        with hub.lock:
            level.messages -= count
            level.bytes -= size
            together.messages -= count
            together.bytes -= size
            if level.full or together.full:
                hub.update_levels(self.queue)
            if self.queue.waiting and hub.refill(self):
                self.session.from_elsewhere(self.tell)

    async def stop(self) -> None:
        with self.session.hub.lock:
            self.session.hub.unsubscribe(self)
        self.silence()

    async def close(self) -> None:
        await self.stop()
        self.give_back(may_have_run=False)

    def give_back(self, *, may_have_run: bool) -> None:
        """Hand the untaken messages to other subscribers."""
        hub = self.session.hub
        with hub.lock:
            hub.give_back(self.queue, self.end(), self.session, may_have_run)
        self.session.forget(self)
