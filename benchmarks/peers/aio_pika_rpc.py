"""aio-pika: its RPC pattern for calls, its Master pattern for casts, as its documentation shows.

Both pickle, which is their default. The channel has no publisher confirms (rpclib's default has none either) and a
prefetch of 256. The patterns have no fanout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika.patterns import RPC, Master

from benchmarks.place import Place
from benchmarks.shapes import AsyncClient

DISTRIBUTIONS = ("aio-pika", "aiormq")


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    def echo_of_its_own() -> Callable[..., Awaitable[bytes]]:
        async def echo(*, value: bytes) -> bytes:
            return value

        return echo

    async def note(*, value: bytes) -> None:
        count()

    async def main() -> None:
        connection = await aio_pika.connect(place.url)
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=256)
        rpc, master = await RPC.create(channel), Master(channel)
        for topic in place.topic_names():
            await rpc.register(topic, echo_of_its_own(), auto_delete=True)  # it takes a function once
            await master.create_worker(f"{topic}-note", note, auto_delete=True)
        ready()
        await asyncio.Event().wait()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._connection = await aio_pika.connect(self.place.url)
        channel = await self._connection.channel(publisher_confirms=False)
        self._rpc, self._master = await RPC.create(channel), Master(channel)

    async def echo(self, topic: str, payload: bytes) -> object:
        return await self._rpc.call(topic, {"value": payload})

    async def note(self, topic: str, payload: bytes) -> None:
        await self._master.create_task(f"{topic}-note", {"value": payload})
