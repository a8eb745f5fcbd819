"""rpclib, async, with its defaults and everything switched on.

Every call carries a deadline and a context, is checked against the endpoint's signature, may be reported as
undeliverable, expires at the backend, and is acknowledged before it runs. The server runs 64 requests at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import rpclib
from benchmarks.place import Place
from benchmarks.shapes import AsyncClient

DISTRIBUTIONS = ("rpclib-messaging", "msgpack", "pika", "pyzmq")


class Echo:
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    @rpclib.expose
    async def echo(self, value: bytes) -> bytes:
        return value

    @rpclib.expose
    async def note(self, value: bytes) -> None:
        self._count()


class PlainEcho(Echo):
    """Plain functions: rpclib runs them on threads."""

    @rpclib.expose
    def echo(self, value: bytes) -> bytes:  # type: ignore[override]
        return value

    @rpclib.expose
    def note(self, value: bytes) -> None:  # type: ignore[override]
        self._count()


async def start(rpc: rpclib.Transport, place: Place, count: Callable[[], None]) -> None:
    endpoint = (PlainEcho if "plain" in place.flags else Echo)(count)
    for topic in place.topic_names():
        await rpc.server(rpclib.Target(topic, server=f"s{place.index}"), [endpoint]).start()


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    async def main() -> None:
        async with rpclib.connect(place.url) as rpc:
            await start(rpc, place, count)
            ready()
            await asyncio.Event().wait()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._rpc = rpclib.connect(self.place.url)
        await self._rpc.open()
        if "inside" in self.place.flags:
            await start(self._rpc, self.place, self.place.tally().counter(0))
        self._clients = {topic: self._rpc.client(topic) for topic in self.place.topic_names()}

    async def echo(self, topic: str, payload: bytes) -> object:
        return await self._clients[topic].call("echo", value=payload)

    async def note(self, topic: str, payload: bytes) -> None:
        await self._clients[topic].cast("note", value=payload)

    async def tell(self, topic: str, payload: bytes) -> None:
        await self._clients[topic].fanout("note", value=payload)
