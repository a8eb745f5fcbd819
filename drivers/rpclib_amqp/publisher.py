"""Sending: one main channel, and probes for the first messages to an address."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import pika

from rpclib.address import Address, Kind
from rpclib.driver import Gate, Observer
from rpclib.driverkit import Ending
from rpclib.errors import AccessDenied, TransportError, again
from rpclib_amqp import codec
from rpclib_amqp.channel import Channel, ChannelClosed
from rpclib_amqp.connection import Connection
from rpclib_amqp.control import ACCESS_REFUSED, NOT_FOUND
from rpclib_amqp.probe import Probe
from rpclib_amqp.topology import INBOX_KEYS, Plan, plan

MAX_EXPIRATION_MS = 2**32 - 1
MAX_PROBES = 100
"""Number of probes in use at a time. The broker allows 2047 channels for a connection."""
SPARE_PROBES = 8
"""Number of idle probes kept for later addresses."""
KEEP_EXTRA_FOR = 2.0
"""Seconds for which more idle probes are kept, since new addresses come in bursts."""
FRESH = 5.0
"""Seconds for which a confirmed message proves that its address works. A program that sends to a thousand addresses
in turn must reach each again within this time, even on a slow machine; otherwise all of them would stay with
probes."""
HELD_AT_MOST = 10_000
HELD_BYTES_AT_MOST = 1024 * 1024
"""Messages and bytes held for one address at which the gate of the address shuts."""
ALL_TOGETHER = 10
"""Times as much, held for all addresses together, shuts the gate of the session."""


class AmqpRoute:
    """An address prepared for sending.

    ``last_arrival`` is the time of the last message that a probe delivered. ``held`` contains, in order, messages
    and their deadlines that wait for the probe. Once the route is ``open``, no message is held any more.
    """

    __slots__ = (
        "exchange",
        "gate",
        "held",
        "held_size",
        "invalid_key",
        "key",
        "last_arrival",
        "mandatory",
        "method",
        "open",
        "probing",
    )

    def __init__(self, target: Plan, channel: int, gate: Gate, mandatory: bool) -> None:
        self.gate = gate
        self.exchange = target.exchange.name
        self.key = target.key
        self.mandatory = mandatory
        self.method = codec.publish(channel, self.exchange, self.key, mandatory)
        self.open = False
        self.invalid_key = False
        """Whether the key is no valid inbox key, so that messages reach nobody."""
        self.last_arrival = -FRESH
        self.held: deque[tuple[bytes, float | None]] = deque()
        self.held_size = 0
        self.probing: asyncio.Task[None] | None = None


class Publisher:
    """Sends the messages of a session. ``gate`` is the gate of the session; ``pressure(source, on)`` shuts it."""

    def __init__(
        self,
        connection: Connection,
        channel: Channel,
        observer: Observer,
        ending: Ending,
        gate: Gate,
        pressure: Callable[[object, bool], None],
    ) -> None:
        self._pressure = pressure
        self._held = 0
        """Messages held for all addresses together."""
        self._held_size = 0
        """Bytes of these messages."""
        self._connection = connection
        self._channel = channel
        self._number: int = channel.channel_number
        self._observer = observer
        self._ending = ending
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._routes: dict[Address, AmqpRoute] = {}
        self._codec_limit = connection.longest_frame if codec.IN_USE else 0
        """Length of the longest body that the codec packs."""
        self._ttl: float | None = None
        self._expiration = b""
        self._probe_slots = asyncio.Semaphore(MAX_PROBES)
        self._spare: list[Probe] = []
        self._retiring: asyncio.TimerHandle | None = None
        channel.add_on_return_callback(self._on_return)

    def route(self, address: Address, must_arrive: bool) -> AmqpRoute:
        """Prepare ``address`` for sending."""
        if address.kind is Kind.INBOX:  # its queue exists as long as its only reader: no probe needed
            if INBOX_KEYS.fullmatch(address.key):
                route = AmqpRoute(plan(address), self._number, self._gate, must_arrive)
                route.open = True
            else:  # not an inbox: the default exchange would route it to any queue of that name
                route = AmqpRoute(plan(Address.inbox("")), self._number, self._gate, must_arrive)
                route.invalid_key = True
            return route
        known = self._routes.get(address)
        if known is None:
            target = plan(address)
            known = self._routes[address] = AmqpRoute(target, self._number, Gate(), target.mandatory)
        return known

    def send(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        """Publish on the main channel if the route is open. Otherwise hold the message for a probe."""
        if not route.open and not self._opens(route):
            self._hold(route, body, ttl)
            return
        size = len(body)
        if not 0 < size <= self._codec_limit:
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

    async def wait_until_released(self, within: float) -> None:
        """Return when no message is held any more, at the latest after ``within`` seconds."""
        probing: list[asyncio.Task[None]] = [
            route.probing for route in self._routes.values() if route.probing is not None
        ]
        if probing:
            await asyncio.wait(probing, timeout=within)

    def end_gates(self, error: TransportError) -> None:
        """End all waiting for the gates of routes, with ``error``."""
        for route in self._routes.values():
            route.gate.end(error)

    def end(self) -> None:
        """Drop the held messages."""
        if self._retiring is not None:
            self._retiring.cancel()
        for route in self._routes.values():
            route.held.clear()
            if route.probing is not None:
                route.probing.cancel()

    def _opens(self, route: AmqpRoute) -> bool:
        """Open the route if a probe's message arrived recently. Returns whether it is open.

        Seldom used addresses stay with probes: a confirmation minutes ago does not show that the main channel can
        send to the address now.
        """
        route.open = route.probing is None and self._loop.time() < route.last_arrival + FRESH
        return route.open

    def _hold(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        if route.invalid_key:
            if route.mandatory:
                self._ending.tell_later(self._observer.undeliverable, body, "no inbox has that key")
            return
        route.held.append((body, None if ttl is None else self._loop.time() + ttl))
        self._count(route, 1, len(body))
        if route.held_size >= HELD_BYTES_AT_MOST or len(route.held) >= HELD_AT_MOST:
            route.gate.full(True)
        if route.probing is None:
            route.probing = self._ending.start(self._probe(route))

    async def _probe(self, route: AmqpRoute) -> None:
        """Send held messages one by one by a probe, until one has arrived; then send the rest on the main
        channel."""
        try:
            async with self._probe_slots:
                while route.held and not route.open:
                    body, deadline = route.held.popleft()
                    self._count(route, -1, -len(body))
                    reason = await self._send_by_probe(route, body, self._left(deadline))
                    if reason is None:
                        route.last_arrival = self._loop.time()
                        if route.held:
                            self._release(route)
                    elif isinstance(reason, TransportError):
                        self._refuse(route, body, reason)
                    elif route.mandatory:
                        self._ending.tell(self._observer.undeliverable, body, reason)
        except ChannelClosed:
            pass  # the connection ended, and the session with it
        finally:
            route.probing = None
            route.gate.full(False)

    def _refuse(self, route: AmqpRoute, body: bytes, error: TransportError) -> None:
        """Report ``body`` and all held messages as refused: the broker refuses every message to that address."""
        refused = [body, *(held for held, _ in route.held)]
        self._clear(route)
        for each in refused:
            self._ending.tell(self._observer.refused, each, again(error))

    def _release(self, route: AmqpRoute) -> None:
        """Open the route and send the held messages."""
        route.open = True
        for body, deadline in route.held:
            left = self._left(deadline)
            if left is None or left > 0:
                self.send(route, body, left)
        self._clear(route)

    def _clear(self, route: AmqpRoute) -> None:
        """Forget the held messages of an address."""
        self._count(route, -len(route.held), -route.held_size)
        route.held.clear()

    def _count(self, route: AmqpRoute, messages: int, size: int) -> None:
        """Add to what is held, and shut or open the gate of the session."""
        route.held_size += size
        self._held += messages
        self._held_size += size
        full = self._held >= ALL_TOGETHER * HELD_AT_MOST or self._held_size >= ALL_TOGETHER * HELD_BYTES_AT_MOST
        self._pressure(self, full)

    async def _send_by_probe(self, route: AmqpRoute, body: bytes, ttl: float | None) -> str | TransportError | None:
        """Send a message by a probe. Returns None if it arrived, else why it reached nobody, or the broker's
        refusal."""
        probe = self._usable_spare() or await Probe.open(self._connection)
        try:
            return await probe.publish(route.exchange, route.key, route.mandatory, body, _properties(route, ttl))
        except ChannelClosed as error:
            if not error.code:
                raise
            if error.code == ACCESS_REFUSED:
                return AccessDenied(f"the broker refused it: {error}")
            if error.code == NOT_FOUND:
                return f'there is no exchange "{route.exchange}"'
            return TransportError(f"the broker refused it: {error}")
        finally:
            if probe.clean:
                self._spare.append(probe)
                if self._retiring is None and len(self._spare) > SPARE_PROBES:
                    self._retiring = self._loop.call_later(KEEP_EXTRA_FOR, self._retire)
            else:
                probe.close()

    def _retire(self) -> None:
        self._retiring = None
        while len(self._spare) > SPARE_PROBES:
            self._spare.pop(0).close()

    def _usable_spare(self) -> Probe | None:
        while self._spare:
            probe = self._spare.pop()
            if probe.clean:
                return probe
        return None

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else deadline - self._loop.time()

    def _on_return(self, channel: object, method: pika.spec.Basic.Return, properties: object, body: bytes) -> None:
        self._ending.tell(self._observer.undeliverable, body, f"the broker returned it: {method.reply_text}")


def _properties(route: AmqpRoute, ttl: float | None) -> pika.BasicProperties:
    return pika.BasicProperties(expiration=None if ttl is None or not route.mandatory else _expiration(ttl))


def _expiration(ttl: float) -> str:
    """Milliseconds, capped at the broker's maximum."""
    return str(min(max(int(ttl * 1000), 0), MAX_EXPIRATION_MS))
