"""Receiving: what came for one subscription and was not taken yet."""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Callable

from rpclib.address import Address
from rpclib.driver import Delivery, Subscription
from rpclib.driverkit.clock import clock_of


class Held(Delivery):
    """A delivery with its times, of the clock of the loop: when it was ``sent``, as far as is known, and when it
    ``expires``, None for never. `ReceiveBuffer.take` makes ``waited`` of them."""

    __slots__ = ("expires", "sent")

    def __init__(self, body: bytes, redelivered: bool, sent: float, expires: float | None = None) -> None:
        self.body = body
        self.redelivered = redelivered
        self.sent = sent
        self.expires = expires


class ReceiveBuffer(Subscription):
    """A subscription whose messages lie here until they are taken, oldest first; the expired ones are dropped then.

    A driver's own subscription derives from it and adds `stop`, `close` and, in `left`, what it has to settle.
    """

    def __init__(self, address: Address, prefetch: int, arrived: Callable[[], None]) -> None:
        self.address = address
        self.prefetch = prefetch or sys.maxsize
        """How many may be held."""
        self.held: deque[Held] = deque()
        """What arrived. A driver that gets much at once may add to it by itself, and then call `tell`."""
        self._loop = asyncio.get_running_loop()
        self._now = clock_of(self._loop)
        self._arrived = arrived
        self._telling = False
        self._silent = False

    @property
    def waiting(self) -> int:
        return len(self.held)

    def put(self, message: Held) -> None:
        """Hold a message; ``arrived`` is called in a later turn, once for what comes together."""
        self.held.append(message)
        if not self._telling:
            self._telling = True
            self._loop.call_soon(self.tell)

    def tell(self) -> None:
        """Call ``arrived``. For the end of a callback that read messages; not from inside a call to the driver."""
        self._telling = False
        if not self._silent:
            self._arrived()

    def take(self, limit: int) -> list[Delivery]:
        held = self.held
        taken: list[Delivery] = []
        if not held:
            return taken
        now, count, size = self._now(), 0, 0
        while held and len(taken) < limit:
            message = held.popleft()
            count += 1
            size += len(message.body)
            if message.expires is None or now < message.expires:
                message.waited = now - message.sent
                taken.append(message)
        self.left(taken, count, size)
        return taken

    @abstractmethod
    def left(self, taken: list[Delivery], count: int, size: int) -> None:
        """``count`` messages of ``size`` bytes are no longer held: ``taken`` and the expired. Settle them, and get
        more. What is held again when this returns must be reported again, with `put` or `tell` in a later turn."""

    def silence(self) -> None:
        """Nothing is told any more; what is held can still be taken. For `stop`."""
        self._silent = True

    def end(self) -> list[Held]:
        """Nothing is told or held any more. Returns what was not taken. For `close`, and the end of the session."""
        self._silent = True
        untaken = list(self.held)
        self.held.clear()
        return untaken
