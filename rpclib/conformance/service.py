"""The endpoints that the suite calls."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import rpclib


@rpclib.remote_error
class Refused(Exception):
    """An exception both sides have registered."""


class Stranger(Exception):
    """An exception nobody registered."""


class Service:
    """Does what a test asks for, and writes down what it did.

    ``gate`` holds `wait` until it is set; ``started`` counts the requests that reached it.
    """

    target = rpclib.Target(version="1.2")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.seen: list[Any] = []
        self.gate = asyncio.Event()
        self.started = 0
        self.running = 0
        self.most = 0

    @rpclib.expose
    async def echo(self, value: Any) -> Any:
        return value

    @rpclib.expose
    async def who(self) -> str:
        self.seen.append("who")
        return self.name

    @rpclib.expose
    async def note(self, value: Any) -> None:
        self.seen.append(value)

    @rpclib.expose
    async def wait(self, value: Any = None) -> Any:
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        self.seen.append(value)
        return value

    @rpclib.expose(idempotent=True)
    async def repeat(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    @rpclib.expose
    async def fail(self, registered: bool = False) -> None:
        raise Refused("no", 7) if registered else Stranger("no")

    @rpclib.expose
    async def odd(self) -> Any:
        return object()

    @rpclib.expose
    async def long(self, size: int) -> bytes:
        return b"x" * size

    @rpclib.expose
    async def facts(self) -> dict[str, Any]:
        context = rpclib.current_context()
        return {"metadata": dict(context.metadata), "remaining": context.remaining}

    @rpclib.expose
    def plain(self) -> dict[str, Any]:
        context = rpclib.current_context()
        return {
            "metadata": dict(context.metadata),
            "remaining": context.remaining,
            "main": threading.current_thread() is threading.main_thread(),
        }

    async def hidden(self) -> str:
        return "not exposed"


class Caller:
    """Calls on while it is called."""

    def __init__(self, client: rpclib.Client) -> None:
        self._client = client

    @rpclib.expose
    async def nested(self) -> Any:
        return await self._client.call("facts")
