"""The inbox of a transport: the address of this process, where answers and control messages arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rpclib.address import Address, Kind
from rpclib.errors import BadEnvelope
from rpclib.link.connection import Connection
from rpclib.link.intake import Intake
from rpclib.wire import envelope

ALL = 1 << 30
"""A limit for `Intake.take` that no buffer reaches."""


class Inbox:
    """Hands every message that arrives to the handler of its kind.

    A message that does not parse, or of a kind without a handler, goes to ``bad_envelope``.
    """

    def __init__(self, bad_envelope: Callable[[BadEnvelope], None]) -> None:
        self.key: str | None = None
        """The key of the live session's inbox; None while there is no session."""
        self._intake: Intake | None = None
        self._bad_envelope = bad_envelope
        self._handlers: dict[type, Callable[[Any], None]] = {}

    def on(self, kind: type, handler: Callable[[Any], None]) -> None:
        """Call ``handler`` with every decoded message of class ``kind``. It returns at once and never raises."""
        self._handlers[kind] = handler

    def listen(self, connection: Connection, exchange: str) -> None:
        """Be an inbox of each session that ``connection`` opens from now on."""
        address = Address(Kind.INBOX, exchange)
        self._intake = connection.intake(address, prefetch=0, arrived=self._receive)

    def opened(self) -> None:
        """A session was opened: the inbox has a new key."""
        self.key = None if self._intake is None else self._intake.key

    def _receive(self, intake: Intake) -> None:
        """Take everything that has arrived."""
        handlers = self._handlers
        for delivery in intake.take(ALL):
            try:
                message = envelope.decode(delivery.body)
            except BadEnvelope as error:
                self._bad_envelope(error)
                continue
            handler = handlers.get(type(message))
            if handler is None:
                self._bad_envelope(BadEnvelope("a request in an inbox"))
            else:
                handler(message)
