"""Sending: one channel, and the knowledge which exchanges exist.

Publishing to a missing exchange makes the broker close the channel, and with it everything sent after. So the
first messages for an exchange wait until the broker has said that it exists. A sender creates none: where no
server ever was, a message is undeliverable, with or without an exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pika

from rpclib.address import Address
from rpclib.driver import Events
from rpclib.errors import TransportError
from rpclib_amqp.channel import Channel
from rpclib_amqp.control import Control
from rpclib_amqp.topology import DEFAULT_EXCHANGE, Exchange, plan

MAX_EXPIRATION_MS = 2**32 - 1


@dataclass(slots=True)
class Gate:
    """What is known about an exchange. ``held`` waits, in order, while the broker is asked."""

    exchange: Exchange
    open: bool = False
    held: list[tuple[AmqpRoute, bytes, float | None]] = field(default_factory=list)
    check: asyncio.Task[None] | None = None


@dataclass(slots=True)
class AmqpRoute:
    """An address prepared for sending."""

    gate: Gate
    key: str
    mandatory: bool


class Publisher:
    """``pressure(source, on)`` is told while messages wait for an answer about their exchange."""

    def __init__(
        self,
        channel: Channel,
        control: Control,
        events: Events,
        pressure: Callable[[object, bool], None],
        lose: Callable[[TransportError], None],
    ) -> None:
        self._channel = channel
        self._control = control
        self._events = events
        self._pressure = pressure
        self._lose = lose
        self._gates: dict[Exchange, Gate] = {DEFAULT_EXCHANGE: Gate(DEFAULT_EXCHANGE, open=True)}
        self._plain = pika.BasicProperties()
        channel.add_on_return_callback(self._on_return)

    def route(self, address: Address) -> AmqpRoute:
        """Prepare ``address``."""
        target = plan(address)
        gate = self._gates.setdefault(target.exchange, Gate(target.exchange))
        return AmqpRoute(gate, target.key, target.mandatory)

    def send(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        """Publish, or hold until the exchange is known to exist."""
        gate = route.gate
        if gate.open:
            self._publish(route, body, ttl)
            return
        gate.held.append((route, body, ttl))
        if gate.check is None:
            self._pressure(gate.exchange, True)
            gate.check = asyncio.get_running_loop().create_task(self._check(gate))

    async def settle(self, within: float) -> None:
        """Return when nothing is held any more, at the latest after ``within`` seconds."""
        checks = [gate.check for gate in self._gates.values() if gate.check is not None]
        if checks:
            await asyncio.wait(checks, timeout=within)

    def end(self) -> None:
        """Drop what is held."""
        for gate in self._gates.values():
            gate.held.clear()
            if gate.check is not None:
                gate.check.cancel()

    async def _check(self, gate: Gate) -> None:
        try:
            gate.open = await self._control.has_exchange(gate.exchange)
        except TransportError as error:
            gate.held.clear()
            self._lose(error)
            return
        finally:
            gate.check = None
        held, gate.held = gate.held, []
        for route, body, ttl in held:
            if gate.open:
                self._publish(route, body, ttl)
            elif route.mandatory:
                self._events.undeliverable(body, f'there is no exchange "{gate.exchange.name}"')
        self._pressure(gate.exchange, False)

    def _publish(self, route: AmqpRoute, body: bytes, ttl: float | None) -> None:
        properties = self._plain
        if ttl is not None and route.mandatory:
            properties = pika.BasicProperties(expiration=str(min(max(int(ttl * 1000), 0), MAX_EXPIRATION_MS)))
        self._channel.basic_publish(route.gate.exchange.name, route.key, body, properties, route.mandatory)

    def _on_return(self, channel: object, method: pika.spec.Basic.Return, properties: object, body: bytes) -> None:
        self._events.undeliverable(body, f"the broker returned it: {method.reply_text}")
