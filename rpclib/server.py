"""`Server`: endpoints at a topic."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from rpclib.address import Address, Kind, Target, default_server
from rpclib.driver import Delivery
from rpclib.endpoints import Endpoints
from rpclib.envelope import Request, decode, encode_again
from rpclib.errors import (
    BadEnvelope,
    ConfigError,
    NoServer,
    SerializationError,
    TransportError,
    WorkerLost,
)
from rpclib.intake import Intake
from rpclib.workers import Workers

if TYPE_CHECKING:
    from rpclib.transport import Transport

log = logging.getLogger("rpclib")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOP_INTAKE = 5.0
"""Seconds the backend gets to confirm that nothing more is coming."""


class Server:
    """Serves endpoints at three addresses: the topic (shared with its other servers), ``topic.server`` (its own)
    and the topic's fanout. Make one with `Transport.server`.

    Several servers may have the same name and then share it. One server runs at most ``workers`` requests at a
    time; the rest waits at the backend, up to as many again in this process.
    """

    def __init__(
        self, rpc: Transport, target: Target, endpoints: Iterable[object], *, workers: int, grace: float
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 10_000:
            raise ConfigError(f"workers must be a number from 1 to 10000, not {workers!r}")
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace < 1e9:
            raise ConfigError(f"grace must be a number of seconds, not {grace!r}")
        self._rpc = rpc
        self.target = replace(target, server=target.server or default_server())
        own = self.target.one()
        self._addresses = (replace(own, key=""), own, self.target.all())
        self.endpoints = Endpoints(endpoints)
        self.workers = workers
        self.grace = grace
        self._intakes: list[Intake] = []
        self._stopped = asyncio.Event()
        self.started = False
        """Whether `start` was called."""
        self._stopping = False
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Serve. In effect on return: what anyone sends from now on arrives."""
        if self.started:
            raise ConfigError("this server was started before; make a new one with rpc.server()")
        self.started = True
        self._running = Workers(self._rpc, self.endpoints, self.workers)
        subscribing = [asyncio.ensure_future(self._subscribe(address)) for address in self._addresses]
        try:
            await asyncio.gather(*subscribing)
        except BaseException:
            await _cancel(*subscribing)
            await self.stop(grace=0)
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Stop gracefully: take nothing new, let what runs finish and answer within ``grace`` seconds (default:
        the server's), pass on what was not started, cancel what still runs. Idempotent; called with 0 while
        another stop waits, it ends that wait."""
        if not self.started or self._stopping:
            if grace == 0:
                self._hurry.set()
            if self.started:
                await self._stopped.wait()
            self._rpc.forget(self)
            return
        self._stopping = True
        try:
            try:
                await self._stop_intake()
                await self._finish(self.grace if grace is None else grace)
            finally:  # cancelled, it stops at once
                await self._end()
        finally:
            self._rpc.forget(self)
            self._stopped.set()

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._stopped.wait()

    @property
    def saturated(self) -> bool:
        """Whether every worker is busy while more requests wait in this process."""
        return self.started and self._running.saturated

    async def serve_forever(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

        Call it in the main thread. Returns when everything is answered.
        """
        if not self.started:
            await self.start()
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()

        def on_signal() -> None:
            if signalled.is_set():
                self._hurry.set()
            signalled.set()

        for number in _SIGNALS:
            loop.add_signal_handler(number, on_signal)
        try:
            await _first(signalled.wait(), self.wait())
            await self.stop()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _subscribe(self, address: Address) -> None:
        intake = await self._rpc.connection.subscribe(address, prefetch=self.workers, arrived=self._running.feed)
        self._intakes.append(intake)

    async def _stop_intake(self) -> None:
        stops = [asyncio.ensure_future(intake.stop()) for intake in self._intakes]
        if stops:
            await asyncio.wait(stops, timeout=_STOP_INTAKE)
        for intake, stop in zip(self._intakes, stops, strict=True):
            if stop.done() and not stop.exception():
                self._running.feed(intake)
            else:
                stop.cancel()
                intake.detach()

    async def _finish(self, grace: float) -> None:
        """Let what arrived run, and what runs finish, for at most ``grace`` seconds."""
        drained = asyncio.ensure_future(self._running.idle())
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((drained, hurry), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if self._running.count:
                log.warning("server %s: %d requests outlived the grace", self.target, self._running.count)
        finally:
            await _cancel(drained, hurry)

    async def _end(self) -> None:
        for intake in self._intakes:
            for delivery in intake.take(1 << 30):
                self._pass_on(intake.address, delivery)
            with contextlib.suppress(TransportError):
                await intake.close()
        await self._running.close()

    def _pass_on(self, address: Address, delivery: Delivery) -> None:
        """Send a request that was not started to the topic's other servers, as a new message."""
        try:
            request = decode(delivery.body)
        except BadEnvelope as error:
            self._rpc.bad_envelope(error)
            return
        if not isinstance(request, Request):
            return
        driver = self._rpc.connection.driver
        if address.kind is Kind.ALL or driver is None:
            return
        if delivery.redelivered:  # a new message would not say so
            self._rpc.counters.redelivered += 1
            text = f"a worker that had taken {request.method} went away; it may have run"
            self._rpc.send_error(request, WorkerLost(text, maybe_executed=True))
            return
        if address.key and request.reply_to is not None:
            text = f"server {self.target} is stopping and did not run {request.method}"
            self._rpc.send_error(request, NoServer(text, maybe_executed=False))
            return
        remaining = None if request.remaining is None else request.remaining - delivery.waited
        if remaining is not None and remaining <= 0:
            self._rpc.counters.expired += 1
            return
        try:
            body = encode_again(request, remaining, request.reply_to)
            driver.send(driver.route(address), body, remaining, request.id if request.reply_to else b"")
        except (TransportError, SerializationError) as error:  # decoding is more tolerant than encoding
            log.warning("could not pass on %s: %s", request.method, error)

    def __repr__(self) -> str:
        return f"<Server {self.target} on {self._rpc.resolved.url}>"


async def _first(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait for one of them; cancel the others."""
    tasks = [asyncio.ensure_future(item) for item in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _cancel(*tasks)


async def _cancel(*futures: asyncio.Future[Any]) -> None:
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
