"""Requests of this process that came back: sent again, or reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rpclib.calling.calls import Call
from rpclib.errors import NoServer, TransportError
from rpclib.link.link import Link
from rpclib.wire.request import Request, encode_again

log = logging.getLogger("rpclib")

FIRST_RESEND = 0.05
"""Seconds before a returned call is sent for the second time; each further pause is twice as long."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """A cast that reached nobody, as given to `Transport.on_undeliverable`."""

    method: str
    args: dict[str, Any]
    reason: str


class Returned:
    """Decides what becomes of a call or cast that the driver reports as undeliverable."""

    def __init__(self, link: Link, on_undeliverable: Callable[[Undeliverable], None] | None) -> None:
        self.on_undeliverable = on_undeliverable
        self._link = link

    def cast(self, request: Request, reason: str) -> None:
        """Count a cast that reached nobody, and report it to the program."""
        self._link.counters.undeliverable += 1
        if self.on_undeliverable is None:
            return
        try:
            self.on_undeliverable(Undeliverable(request.method, request.args, reason))
        except Exception:
            log.exception("on_undeliverable raised")

    def call(self, call: Call, request: Request, reason: str) -> None:
        """Send a call again until its grace is over, since a server may be starting; then end it with NoServer."""
        now = self._link.now()
        elapsed = now - call.sent
        call.returned = NoServer(
            f"nobody serves {call.sender.address} on {self._link.connection.host} ({reason}; tried for "
            f"{elapsed:.1f} s). Is the server running, and with the same exchange?",
            maybe_executed=False,
        )
        if elapsed >= call.route_grace:
            call.fail(call.returned)
            return
        delay = min(FIRST_RESEND * 2**call.resends, call.route_grace - elapsed, max(0.0, call.deadline - now))
        call.resends += 1
        self._link.loop.call_later(delay, self._resend, call, request)

    def _resend(self, call: Call, request: Request) -> None:
        link = self._link
        remaining = call.deadline - link.now()
        if call.future.done() or remaining <= 0:
            return
        body = encode_again(request, remaining, link.inbox.key)
        try:
            sent = call.sender.send(body, remaining, call.id)
        except TransportError as error:
            call.fail(error)
            return
        if sent:
            call.returned = None
        else:
            link.loop.call_later(FIRST_RESEND, self._resend, call, request)
