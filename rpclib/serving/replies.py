"""Answers: what a result or an exception becomes on the wire, and sending it to the caller's inbox."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from rpclib.address import Address
from rpclib.context import Context
from rpclib.errors import (
    REGISTERED,
    BadEnvelope,
    MessageTooLarge,
    RemoteError,
    RpcError,
    SerializationError,
    TransportError,
    details_of,
    type_name,
)
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from rpclib.wire import serializer
from rpclib.wire.answer import encode_error, encode_result
from rpclib.wire.request import Request
from rpclib.wire.serializer import SCALARS

log = logging.getLogger("rpclib")

SENDERS = 1000
"""Callers whose senders are kept."""
_PATIENCE = 60.0
"""Seconds an answer waits for a connection when its request names no deadline."""
_LONGEST_TEXT = 20_000


class Replies:
    """Sends answers; keeps the senders to the inboxes of recent callers."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.senders: dict[str | None, Sender] = {}
        """By the key of the inbox. Each key that is here looks like one of this backend."""

    def result(self, request: Request, result: Any) -> bytes:
        """The answer that carries ``result``, or the error that says why it cannot travel."""
        try:
            if type(result) not in SCALARS:
                serializer.check_value(result, "the result of ", request.method)
            body = encode_result(request.id, result)
            if len(body) > self._link.short:
                self._link.long(body, f"the result of {request.method}")
        except (SerializationError, MessageTooLarge) as error:
            log.error("%s ran, but its result cannot be sent: %s", request.method, error)
            return refusal(request, error)
        return body

    def check(self, request: Request) -> None:
        """Raise BadEnvelope for a call whose reply_to cannot be an inbox of this backend: a key comes from the
        wire, and must not lead anywhere else."""
        if not self._link.is_inbox_key(request.reply_to or ""):
            raise BadEnvelope(f"{request.method[:80]} was called with a reply_to that is no inbox of this backend")

    def answer_now(self, request: Request, body: bytes) -> bool:
        """Send an answer if that needs no waiting. False if it does, or the dead session has not taken it."""
        sender = self.senders.get(request.reply_to) or self._sender(request.reply_to)
        try:
            return sender.send(body, None, request.id)
        except TransportError as error:
            self._give_up(request, error)
            return True

    async def answer(self, request: Request, body: bytes) -> None:
        """Send an answer as soon as there is a session for it; give up when its caller has."""
        try:
            while not self.answer_now(request, body):
                left = Context(request).remaining
                await self._sender(request.reply_to).ready(
                    _PATIENCE if left is None else left, f"the answer to {request.method[:80]}"
                )
        except TransportError as error:
            self._give_up(request, error)

    def refuse(self, request: Request, error: RpcError) -> None:
        """Answer a request that will not run, if there is a session right now."""
        try:
            sent = self._sender(request.reply_to).push(refusal(request, error), None, request.id)
        except TransportError:
            sent = False
        if not sent:
            self._link.counters.unanswered += 1

    def _give_up(self, request: Request, error: Exception) -> None:
        self._link.counters.unanswered += 1
        log.warning("no answer to %s from %s: %s", request.method[:80], request.caller, error)

    def _sender(self, reply_to: str | None) -> Sender:
        sender = self.senders.get(reply_to)
        if sender is None:
            if len(self.senders) >= SENDERS:
                self.senders.clear()
            address = Address.inbox(reply_to or "")
            sender = self.senders[reply_to] = Sender(self._link, address)
        return sender


def refusal(request: Request, error: RpcError) -> bytes:
    """The answer for an error of rpclib itself, which arrives as its own class."""
    return encode_error(request.id, error.code, "", _text(error), "", None, details_of(error))


def failure(request: Request, error: BaseException, longest: int) -> bytes:
    """The answer for what an endpoint raised: its own class where that may travel, else a RemoteError.

    The args of a registered exception are left out if the answer would have more than ``longest`` bytes."""
    if isinstance(error, RpcError) and error.travels:
        return refusal(request, error)
    name = type_name(type(error))
    message = _text(error)
    text = _clean("".join(traceback.format_exception(error))[-_LONGEST_TEXT:])
    args = list(error.args) if name in REGISTERED else None
    try:
        if args is not None:
            serializer.check_value(args, "args")
            body = encode_error(request.id, RemoteError.code, name, message, text, args, {})
            if len(body) <= longest:
                return body
    except SerializationError:
        pass
    return encode_error(request.id, RemoteError.code, name, message, text, None, {})


def _text(error: BaseException) -> str:
    try:
        return _clean(str(error)[:_LONGEST_TEXT])
    except Exception:
        return "(its __str__ raised)"


def _clean(text: str) -> str:
    """What UTF-8 cannot express, spelled out."""
    return text.encode(errors="backslashreplace").decode()
