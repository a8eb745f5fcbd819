"""`Server`: endpoints at a topic."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Self

from rpclib import tasks
from rpclib.address import Address, Target, default_server
from rpclib.errors import ConfigError, TransportError
from rpclib.link.inbox import ALL
from rpclib.link.intake import Intake
from rpclib.link.link import Link
from rpclib.serving import signals
from rpclib.serving.crew import Crew
from rpclib.serving.endpoints import Endpoints
from rpclib.serving.handover import Handover
from rpclib.serving.replies import Replies
from rpclib.serving.workers import Workers

log = logging.getLogger("rpclib")

_STOP_INTAKE = 5.0
"""Seconds the backend gets to confirm that nothing more is coming."""


class Server:
    """Serves endpoints at three addresses: the topic (shared with its other servers), ``topic.server`` (its own)
    and the topic's fanout. Make one with `Transport.server`.

    Several servers may have the same name and then share it. One server runs at most ``workers`` requests at a
    time; the rest waits at the backend, up to as many again in this process.
    """

    def __init__(
        self,
        link: Link,
        crew: Crew,
        replies: Replies,
        target: Target,
        endpoints: Iterable[object],
        *,
        workers: int,
        grace: float,
        on_stopped: Callable[[Server], None],
    ) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 10_000:
            raise ConfigError(f"workers must be a number from 1 to 10000, not {workers!r}")
        if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace < 1e9:
            raise ConfigError(f"grace must be a number of seconds, not {grace!r}")
        self.target = replace(target, server=target.server or default_server())
        own = self.target.one()
        self._addresses = (replace(own, key=""), own, self.target.all())
        self.endpoints = Endpoints(endpoints)
        self.workers = workers
        self.grace = grace
        self.started = False
        """Whether `start` was called."""
        self._link = link
        self._on_stopped = on_stopped
        self._handover = Handover(link, replies, self.target)
        self._running = Workers(link, crew, self.endpoints, replies, workers)
        self._intakes: list[Intake] = []
        self._stopped = asyncio.Event()
        self._stopping = False
        self._stop_now = asyncio.Event()

    async def start(self) -> None:
        """Serve. In effect on return: what anyone sends from now on arrives."""
        if self.started:
            raise ConfigError("this server was started before; make a new one with rpc.server()")
        self.started = True
        subscribing = [asyncio.ensure_future(self._subscribe(address)) for address in self._addresses]
        try:
            await asyncio.gather(*subscribing)
        except BaseException:
            await tasks.ended(*subscribing)
            await self.stop(grace=0)
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Stop gracefully: take nothing new, let what runs finish and answer within ``grace`` seconds (default:
        the server's), pass on what was not started, cancel what still runs. Idempotent; called with 0 while
        another stop waits, it ends that wait."""
        if not self.started or self._stopping:
            if grace == 0:
                self.stop_now()
            if self.started:
                await self._stopped.wait()
            self._on_stopped(self)
            return
        self._stopping = True
        try:
            try:
                await self._stop_intake()
                await self._finish(self.grace if grace is None else grace)
            finally:  # cancelled, it stops at once
                await self._end()
        finally:
            self._on_stopped(self)
            self._stopped.set()

    def stop_now(self) -> None:
        """End the grace of a stop that is under way, or of the next one."""
        self._stop_now.set()

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await self._stopped.wait()

    @property
    def saturated(self) -> bool:
        """All workers are busy and requests wait in this process."""
        return self._running.saturated

    async def serve_forever(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully; a second signal stops at once.

        Call it in the main thread. Returns when everything is answered.
        """
        if not self.started:
            await self.start()
        signalled = asyncio.Event()
        with signals.on_loop(signalled.set, self.stop_now):
            await tasks.first(signalled.wait(), self.wait())
            await self.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _subscribe(self, address: Address) -> None:
        connection = self._link.connection
        intake = await connection.subscribe(address, prefetch=self.workers, arrived=self._running.pull)
        self._intakes.append(intake)

    async def _stop_intake(self) -> None:
        stops = [asyncio.ensure_future(intake.stop()) for intake in self._intakes]
        if stops:
            await asyncio.wait(stops, timeout=_STOP_INTAKE)
        for intake, stop in zip(self._intakes, stops, strict=True):
            if stop.done() and not stop.exception():
                self._running.pull(intake)
            else:
                stop.cancel()
                intake.detach()

    async def _finish(self, grace: float) -> None:
        """Let what arrived run, and what runs finish, for at most ``grace`` seconds."""
        drained = asyncio.ensure_future(self._running.idle())
        at_once = asyncio.ensure_future(self._stop_now.wait())
        try:
            await asyncio.wait((drained, at_once), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if self._running.count:
                log.warning("server %s: %d requests outlived the grace", self.target, self._running.count)
        finally:
            await tasks.ended(drained, at_once)

    async def _end(self) -> None:
        for intake in self._intakes:
            for delivery in intake.take(ALL):
                self._handover.hand_over(intake.address, delivery)
            with contextlib.suppress(TransportError):
                await intake.close()
        await self._running.close()

    def __repr__(self) -> str:
        return f"<Server {self.target} on {self._link.connection.url}>"
