"""Answers: what a result or an exception becomes on the wire, and sending it to the caller's inbox."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any

from rpclib import serializer
from rpclib.address import Address
from rpclib.context import Context
from rpclib.driver import Driver, Route
from rpclib.envelope import Request, encode_error, encode_result
from rpclib.errors import (
    REGISTERED,
    ConnectionLost,
    MessageTooLarge,
    RemoteError,
    RpcError,
    SerializationError,
    TransportError,
    details_of,
    type_name,
)
from rpclib.memory import keep_freed
from rpclib.serializer import SCALARS

if TYPE_CHECKING:
    from rpclib.transport import Transport

log = logging.getLogger("rpclib")

_ROUTES = 1000
_PATIENCE = 60.0
"""Seconds an answer waits for a connection when its request names no deadline."""
_LONGEST_TEXT = 20_000


class Replies:
    """Sends answers; keeps the routes to the inboxes of recent callers."""

    def __init__(self, rpc: Transport) -> None:
        self._rpc = rpc
        self._driver: Driver | None = None
        self._routes: dict[str | None, Route] = {}

    def result(self, request: Request, result: Any) -> bytes:
        """The answer that carries ``result``, or the error that says why it cannot travel."""
        try:
            if type(result) not in SCALARS:
                serializer.check_value(result, "the result of ", request.method)
            body = encode_result(request.id, result)
            if len(body) > self._rpc.short:
                self._long(request, body)
        except (SerializationError, MessageTooLarge) as error:
            log.error("%s ran, but its result cannot be sent: %s", request.method, error)
            return refusal(request, error)
        return body

    def _long(self, request: Request, body: bytes) -> None:
        """What a long message takes. Raises MessageTooLarge."""
        keep_freed()
        if len(body) > self._rpc.max_body:
            raise MessageTooLarge(
                f"the result of {request.method} takes {len(body)} bytes; at most {self._rpc.max_body} travel"
            )

    def answer_now(self, request: Request, body: bytes) -> bool:
        """Send an answer if that needs no waiting. False if it does, or the dead session has not taken it."""
        driver = self._rpc.connection.driver
        if driver is None or driver.gate.shut:
            return False
        if driver is not self._driver:
            self._driver, self._routes = driver, {}
        route = self._routes.get(request.reply_to)
        if route is None:
            route = self._route(driver, request.reply_to or "")
        if route.gate.shut:
            return False
        try:
            driver.send(route, body, None, request.id)
        except ConnectionLost as error:
            self._rpc.connection.dead(driver, error)
            return False
        except TransportError as error:
            self._give_up(request, error)
        return True

    async def answer(self, request: Request, body: bytes) -> None:
        """Send an answer as soon as there is a session for it; give up when its caller has."""
        if request.reply_to is None:
            return
        try:
            while True:
                left = Context(request).remaining
                await self._rpc.connection.ready(
                    _PATIENCE if left is None else left, to=Address.inbox(request.reply_to)
                )
                if self.answer_now(request, body):
                    return
        except (TransportError, TimeoutError) as error:
            self._give_up(request, error)

    def _give_up(self, request: Request, error: Exception) -> None:
        self._rpc.counters.unanswered += 1
        log.warning("no answer to %s from %s: %s", request.method[:80], request.caller, error)

    def _route(self, driver: Driver, reply_to: str) -> Route:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        route = self._routes[reply_to] = driver.route(Address.inbox(reply_to))
        return route


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
