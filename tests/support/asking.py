"""Requests put straight before a server, as a driver would, and the answers it sends."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import rpclib
from rpclib.address import Address, Kind
from rpclib.wire.answer import Failure, Result
from rpclib.wire.envelope import decode
from rpclib.wire.kinds import CALL
from rpclib.wire.request import Request
from tests.support.envelopes import encode_request
from tests.support.scripted import World, scripted, until

SHARED = Address(Kind.ONE, "rpclib", "t")
OWN = Address(Kind.ONE, "rpclib", "t", "s")
EVERY = Address(Kind.ALL, "rpclib", "t")


def request(deadline: float | None = None, *, context: dict[str, Any] | None = None) -> Request:
    """A request by itself, as one that is served."""
    made = decode(encode_request(CALL, b"\1" * 16, "boot", {}, 5.0, "caller", None, None, context, "web1:7"))
    assert isinstance(made, Request)
    made.deadline = deadline
    return made


class Asker:
    """One server and what goes on around it."""

    def __init__(self, world: World, rpc: rpclib.Transport, server: rpclib.Server) -> None:
        self.world, self.rpc, self.server = world, rpc, server
        self._numbers = itertools.count(1)

    def body(
        self,
        method: str,
        *,
        kind: int = CALL,
        remaining: float | None = 5.0,
        context: dict[str, Any] | None = None,
        **args: Any,
    ) -> bytes:
        """A request from elsewhere."""
        ident = b"f" * 8 + next(self._numbers).to_bytes(8, "big")
        reply_to = "caller" if kind == CALL else None
        return encode_request(kind, ident, method, args, remaining, reply_to, None, None, context, "web1:7")

    def put(
        self, method: str, *, to: Address = SHARED, redelivered: bool = False, waited: float = 0.0, **more: Any
    ) -> bytes:
        """Deliver a request; returns its id."""
        body = self.body(method, **more)
        self.world.session.deliver(to, body, redelivered, waited)
        return decode(body).id

    def answers(self, ident: bytes) -> list[Result | Failure]:
        messages = [sent.message for sent in self.world.sent if sent.address == Address.inbox("caller")]
        return [one for one in messages if isinstance(one, (Result, Failure)) and one.id == ident]

    @property
    def passed_on(self) -> list[tuple[Address, Request]]:
        """The requests it sent, and where to."""
        return [(sent.address, sent.message) for sent in self.world.sent if isinstance(sent.message, Request)]

    async def answer(self, ident: bytes) -> Result | Failure:
        await until(lambda: self.answers(ident), "the answer")
        [found] = self.answers(ident)
        return found

    async def ask(self, method: str, **more: Any) -> Any:
        """The result of a call."""
        found = await self.answer(self.put(method, **more))
        assert isinstance(found, Result), vars_of(found)
        return found.value

    async def refused(self, method: str, **more: Any) -> Failure:
        """The error of a call."""
        found = await self.answer(self.put(method, **more))
        assert isinstance(found, Failure), found
        return found


def vars_of(failure: Failure) -> str:
    return f"{failure.code} {failure.type} {failure.message} {failure.traceback}"


@asynccontextmanager
async def serving(
    *endpoints: object, workers: int = 5, grace: float = 5, **attributes: Any
) -> AsyncIterator[Asker]:
    """A server ``t.s`` of the scripted driver. ``attributes`` are the driver's."""
    driver = scripted(**attributes)
    async with rpclib.connect("x://h", driver=driver, timeout=5) as rpc:
        server = rpc.server(rpclib.Target("t", server="s"), endpoints, workers=workers, grace=grace)
        async with server:
            yield Asker(driver.world, rpc, server)
