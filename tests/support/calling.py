"""What tests of calls over the scripted driver share: a service, a driver that reopens at once, and replies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rpclib
from rpclib.address import Address
from rpclib.link import backoff
from rpclib.wire.answer import encode_result
from rpclib.wire.request import Request
from tests.support.scripted import Scripted, World, scripted


class Service:
    def __init__(self) -> None:
        self.ran = 0

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        self.ran += 1
        return value

    @rpclib.expose
    async def hang(self) -> None:
        self.ran += 1
        await asyncio.Event().wait()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(backoff, "delay", lambda *_: 0.0)
    return scripted()


def connect(driver: type[Scripted], **settings: Any) -> rpclib.Transport:
    return rpclib.connect("x://h", driver=driver, **{"timeout": 5, "grace": 0, **settings})


def reply(world: World, request: Request, value: Any) -> None:
    world.session.deliver(Address.inbox(request.reply_to or ""), encode_result(request.id, value))
