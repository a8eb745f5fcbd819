"""Sending: one channel for everything, and scouts that go before it."""

from __future__ import annotations

import asyncio
from collections import deque

import pika

from rpclib.address import Address, Kind
from rpclib.driver import Gate, Observer
from rpclib.driverkit import Ending
from rpclib.errors import AccessDenied, TransportError, again
from rpclib_amqp import codec
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import ACCESS_REFUSED, NOT_FOUND
from rpclib_amqp.scout import Scout
from rpclib_amqp.topology import INBOX_KEYS, Plan, plan

MAX_EXPIRATION_MS = 2**32 - 1
SCOUTS = 100
"""At a time; the broker allows 2047 channels for a connection."""
SPARE_SCOUTS = 8
"""Kept for the next addresses."""
MORE_FOR = 2.0
"""Seconds for which more than those are kept, since addresses come in bursts."""
FRESH = 5.0
"""Seconds for which a message that arrived vouches for its address. A thousand addresses in turn must come around
within that, on a slow machine too, or else all of them would stay with the scouts."""
HELD_AT_MOST = 10_000
HELD_BYTES_AT_MOST = 1024 * 1024
"""Messages and bytes held for one address with which its gate shuts."""


class AmqpRoute:
    """An address prepared for sending. ``arrived`` is when a scout's message last did. ``held`` are messages with
    their deadlines that wait, in order, for a scout to return; once ``open``, none ever does again."""

    __slots__ = (
        "arrived",
        "exchange",
        "gate",
        "held",
        "held_size",
        "key",
        "mandatory",
        "method",
        "nobody",
        "open",
        "scouting",
    )

    def __init__(self, target: Plan, channel: int, gate: Gate, mandatory: bool) -> None:
        self.gate = gate
        self.exchange = target.exchange.name
        self.key = target.key
        self.mandatory = mandatory
        self.method = codec.publish(channel, self.exchange, self.key, mandatory)
        self.open = False
        self.nobody = False
        """It leads nowhere: the key of the inbox is none."""
        self.arrived = -FRESH
        self.held: deque[tuple[bytes, float | None]] = deque()
        self.held_size = 0
        self.scouting: asyncio.Task[None] | None = None


class Publisher:
    """``gate`` is the session's."""

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        observer: Observer,
        ending: Ending,
        gate: Gate,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._number: int = channel.channel_number
        self._observer = observer
        self._ending = ending
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._routes: dict[Address, AmqpRoute] = {}
        self._fused = connection.longest_frame if codec.IN_USE else 0
        """The longest body that the codec sends."""
        self._ttl: float | None = None
        self._expiration = b""
        self._scouts = asyncio.Semaphore(SCOUTS)
        self._spare: list[Scout] = []
        self._retiring: asyncio.TimerHandle | None = None
        channel.add_on_return_callback(self._on_return)

    def route(self, address: Address, must_arrive: bool) -> AmqpRoute:
        """Prepare ``address``."""
        if address.kind is Kind.INBOX:  # its queue lives as long as its only reader: nothing to find out
            if INBOX_KEYS.fullmatch(address.key):
                route = AmqpRoute(plan(address), self._number, self._gate, must_arrive)
                route.open = True
            else:  # any other queue, to the broker
                route = AmqpRoute(plan(Address.inbox("")), self._number, self._gate, must_arrive)
                route.nobody = True
            return route
        known = self._routes.get(address)
        if known is None:
            target = plan(address)
            known = self._routes[address] = AmqpRoute(target, self._number, Gate(), target.mandatory)
        return known

    def send(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        """Publish, or have a scout do it, or hold until one is back."""
        if not route.open and not self._opens(route):
            self._hold(route, body, ttl)
            return
        size = len(body)
        if not 0 < size <= self._fused:
            self._channel.basic_publish(route.exchange, route.key, body, _properties(route, ttl), route.mandatory)
            return
        if ttl is None or not route.mandatory:
            expiration = b""
        elif ttl == self._ttl:
            expiration = self._expiration
        else:
            self._ttl = ttl
            expiration = self._expiration = _expiration(ttl).encode()
        self._connection.emit(route.method, codec.content(self._number, size, expiration), body, size)

    async def settle(self, within: float) -> None:
        """Return when nothing is held any more, at the latest after ``within`` seconds."""
        scouting: list[asyncio.Task[None]] = [
            route.scouting for route in self._routes.values() if route.scouting is not None
        ]
        if scouting:
            await asyncio.wait(scouting, timeout=within)

    def let_go(self, error: TransportError) -> None:
        """Nobody waits to send any more."""
        for route in self._routes.values():
            route.gate.end(error)

    def end(self) -> None:
        """Drop what is held."""
        if self._retiring is not None:
            self._retiring.cancel()
        for route in self._routes.values():
            route.held.clear()
            if route.scouting is not None:
                route.scouting.cancel()

    def _opens(self, route: AmqpRoute) -> bool:
        """Seldom used addresses stay with the scouts: what a message found out is worth nothing minutes later, and
        this channel must not meet an address at a bad moment."""
        route.open = route.scouting is None and self._loop.time() < route.arrived + FRESH
        return route.open

    def _hold(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        if route.nobody:
            if route.mandatory:
                self._ending.tell_later(self._observer.undeliverable, body, "no inbox has that key")
            return
        route.held.append((body, None if ttl is None else self._loop.time() + ttl))
        route.held_size += len(body)
        if route.held_size >= HELD_BYTES_AT_MOST or len(route.held) >= HELD_AT_MOST:
            route.gate.full(True)
        if route.scouting is None:
            route.scouting = self._ending.start(self._scout(route))

    async def _scout(self, route: AmqpRoute) -> None:
        """Send what is held one by one, until one has arrived; then all the rest."""
        try:
            async with self._scouts:
                while route.held and not route.open:
                    body, deadline = route.held.popleft()
                    route.held_size -= len(body)
                    reason = await self._first(route, body, self._left(deadline))
                    if reason is None:
                        route.arrived = self._loop.time()
                        if route.held:
                            self._release(route)
                    elif isinstance(reason, TransportError):
                        self._refuse(route, body, reason)
                    elif route.mandatory:
                        self._ending.tell(self._observer.undeliverable, body, reason)
        except ChannelClosed:
            pass  # with its connection, which is the end of the session
        finally:
            route.scouting = None
            route.gate.full(False)

    def _refuse(self, route: AmqpRoute, body: bytes, error: TransportError) -> None:
        """The broker takes none to that address: neither the one that went nor those behind it."""
        refused = [body, *(held for held, _ in route.held)]
        route.held.clear()
        route.held_size = 0
        for each in refused:
            self._ending.tell(self._observer.refused, each, again(error))

    def _release(self, route: AmqpRoute) -> None:
        route.open = True
        for body, deadline in route.held:
            left = self._left(deadline)
            if left is None or left > 0:
                self.send(route, body, left)
        route.held.clear()
        route.held_size = 0

    async def _first(self, route: AmqpRoute, body: bytes, ttl: float | None) -> str | TransportError | None:
        """Send by scout. Returns why it reached nobody, if so, or why the broker did not take it."""
        scout = self._clean_spare() or await Scout.open(self._connection)
        try:
            return await scout.publish(route.exchange, route.key, route.mandatory, body, _properties(route, ttl))
        except ChannelClosed as error:
            if not error.code:
                raise
            if error.code == ACCESS_REFUSED:
                return AccessDenied(f"the broker refused it: {error}")
            if error.code == NOT_FOUND:
                return f'there is no exchange "{route.exchange}"'
            return TransportError(f"the broker refused it: {error}")
        finally:
            if scout.clean:
                self._spare.append(scout)
                if self._retiring is None and len(self._spare) > SPARE_SCOUTS:
                    self._retiring = self._loop.call_later(MORE_FOR, self._retire)
            else:
                scout.close()

    def _retire(self) -> None:
        self._retiring = None
        while len(self._spare) > SPARE_SCOUTS:
            self._spare.pop(0).close()

    def _clean_spare(self) -> Scout | None:
        while self._spare:
            scout = self._spare.pop()
            if scout.clean:
                return scout
        return None

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else deadline - self._loop.time()

    def _on_return(self, channel: object, method: pika.spec.Basic.Return, properties: object, body: bytes) -> None:
        self._ending.tell(self._observer.undeliverable, body, f"the broker returned it: {method.reply_text}")


def _properties(route: AmqpRoute, ttl: float | None) -> pika.BasicProperties:
    return pika.BasicProperties(expiration=None if ttl is None or not route.mandatory else _expiration(ttl))


def _expiration(ttl: float) -> str:
    """Milliseconds, of which the broker accepts no more than so many."""
    return str(min(max(int(ttl * 1000), 0), MAX_EXPIRATION_MS))
