"""The requests of one server: a bounded number at a time."""

from __future__ import annotations

import asyncio
import logging

from rpclib.driver import Delivery
from rpclib.errors import BadEnvelope, RpcError, WorkerLost
from rpclib.link.intake import Intake
from rpclib.link.link import Link
from rpclib.serving.crew import Crew
from rpclib.serving.endpoints import Endpoints
from rpclib.serving.replies import Replies
from rpclib.serving.run import Runner, may_have_run
from rpclib.wire.envelope import decode
from rpclib.wire.request import Request

log = logging.getLogger("rpclib")

_CANCEL_WITHIN = 5.0
"""Seconds that cancelled endpoints have to end."""


class Workers:
    """Takes deliveries and has their requests run by the transport's `Crew`, at most ``limit`` at a time."""

    def __init__(self, link: Link, crew: Crew, endpoints: Endpoints, replies: Replies, limit: int) -> None:
        self.limit = limit
        self.count = 0
        """Requests that were started and have not ended."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Tasks of running requests."""
        self._link = link
        self._crew = crew
        self._endpoints = endpoints
        self._replies = replies
        self._runner = Runner(link, replies, limit)
        self._backlogged: dict[Intake, None] = {}
        """Intakes where more has arrived than there was capacity for; the one that waits longest first."""
        self._pulling = False
        self._quiet = asyncio.Event()

    @property
    def saturated(self) -> bool:
        """All workers are busy and requests wait."""
        return any(intake.waiting for intake in self._backlogged)

    def pull(self, intake: Intake) -> None:
        """Start what has arrived at an address: now as much as there is capacity for, the rest later."""
        while (capacity := self.limit - self.count) > 0:
            taken = intake.take(capacity)
            for delivery in taken:
                self.start(delivery)
            if len(taken) < capacity:
                return
        if intake.waiting:
            self._backlogged[intake] = None

    async def idle(self) -> None:
        """Return when nothing runs and nothing waits to."""
        while self.count or self._backlogged:
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Cancel what still runs; its callers are told WorkerLost."""
        self._runner.stopping = True
        unbegun = self._crew.withdraw(self)  # at once: the tasks of the crew would go on with it
        self.count -= len(unbegun)
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, ignored = await asyncio.wait(tasks, timeout=_CANCEL_WITHIN)
            if ignored:
                log.error("%d endpoints went on after they were cancelled; they are left alone", len(ignored))
        for request in unbegun:
            text = f"the server was stopped before it ran {request.method}"
            self._runner.refuse_now(request, WorkerLost(text, maybe_executed=False))
        self._runner.close()

    def start(self, delivery: Delivery) -> None:
        """Run the request in ``delivery``, or answer why not. Never raises."""
        try:
            request = decode(delivery.body)
            if type(request) is not Request:
                raise BadEnvelope("not a request")
            if request.wants_answer and request.reply_to not in self._replies.senders:
                self._replies.check(request)
        except BadEnvelope as error:
            self._link.bad_envelope(error)
            return
        if request.budget is not None:
            left = request.budget - delivery.waited
            if left <= 0:
                self._link.counters.expired += 1
                return
            request.now = self._link.now
            request.deadline = self._link.now() + left
        self.count += 1
        try:
            method = self._endpoints.find(request)
            if delivery.redelivered and not method.idempotent:
                self._link.counters.redelivered += 1
                raise may_have_run(request)
        except RpcError as error:
            self._crew.add(self, self._runner.refuse, request, error)
        else:
            self._crew.add(self, self._runner.run, request, method)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Called by the crew: a request has ended."""
        self.tasks.discard(task)
        self.count -= 1
        if self._backlogged or not self.count:
            self._freed()

    def _freed(self) -> None:
        if not self._backlogged:
            self._quiet.set()
        elif not self._pulling:  # once a turn, so that several can be taken together
            self._pulling = True
            self._link.loop.call_soon(self._pull_backlog)

    def _pull_backlog(self) -> None:
        self._pulling = False
        for intake in list(self._backlogged):
            del self._backlogged[intake]
            self.pull(intake)
        if not self._backlogged and not self.count:
            self._quiet.set()
