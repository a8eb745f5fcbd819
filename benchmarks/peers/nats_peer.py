"""nats-py against a NATS server: ``request`` and ``respond`` as its documentation shows, msgpack bodies.

Servers form a queue group. Casts are plain publishes to it, fanout a subject every server subscribes to. No
JetStream, no TLS. NATS carries at most 1 MiB by default; the server is started with 8 MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgpack
import nats
from nats.aio.msg import Msg

from benchmarks.place import Place
from benchmarks.shapes import AsyncClient

DISTRIBUTIONS = ("nats-py", "msgpack")


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    async def on_request(message: Msg) -> None:
        name, arguments = msgpack.unpackb(message.data)
        if name == "echo":
            await message.respond(msgpack.packb(arguments["value"]))
        else:
            count()

    async def main() -> None:
        connection = await nats.connect(place.url)
        for topic in place.topic_names():
            await connection.subscribe(topic, queue="servers", cb=on_request)
        await connection.subscribe(f"{place.run}-fanout", cb=on_request)
        await connection.flush()
        ready()
        await asyncio.Event().wait()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._connection = await nats.connect(self.place.url)

    async def echo(self, topic: str, payload: bytes) -> object:
        body = msgpack.packb(["echo", {"value": payload}])
        return msgpack.unpackb((await self._connection.request(topic, body, timeout=60)).data)

    async def note(self, topic: str, payload: bytes) -> None:
        await self._connection.publish(topic, msgpack.packb(["note", {"value": payload}]))

    async def tell(self, topic: str, payload: bytes) -> None:
        await self._connection.publish(f"{self.place.run}-fanout", msgpack.packb(["note", {"value": payload}]))
