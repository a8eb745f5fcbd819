"""zmq.asyncio: DEALER to ROUTER over IPC with the coroutines that pyzmq itself offers, as its documentation shows.

A future for each call and one task that receives; whole messages, no timeouts, no high-water mark, msgpack bodies,
a correlation id in front. What pyzmq can do is the peer ``pyzmq``, which watches the descriptors itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgpack
import zmq
import zmq.asyncio

from benchmarks.peers.pyzmq_bare import DISTRIBUTIONS as DISTRIBUTIONS
from benchmarks.place import Place
from benchmarks.shapes import AsyncClient


def socket(kind: int) -> zmq.asyncio.Socket:
    made = zmq.asyncio.Context.instance().socket(kind)
    for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
        made.setsockopt(option, 0)
    return made


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    async def main() -> None:
        router = socket(zmq.ROUTER)
        router.bind(f"ipc://{place.socket(place.index)}")
        ready()
        while True:
            sender, number, body = await router.recv_multipart()
            _topic, name, arguments = msgpack.unpackb(body)
            if name == "echo":
                await router.send_multipart([sender, number, msgpack.packb(arguments["value"])])
            else:
                count()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._numbers = itertools.count()
        self._pending: dict[bytes, asyncio.Future[object]] = {}
        self._dealer = socket(zmq.DEALER)
        for index in range(self.place.servers):
            self._dealer.connect(f"ipc://{self.place.socket(index)}")
        self._receiving = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        while True:
            number, body = await self._dealer.recv_multipart()
            self._pending.pop(number).set_result(msgpack.unpackb(body))

    async def echo(self, topic: str, payload: bytes) -> object:
        number = b"%d" % next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        await self._dealer.send_multipart([number, msgpack.packb([topic, "echo", {"value": payload}])])
        return await future

    async def note(self, topic: str, payload: bytes) -> None:
        await self._dealer.send_multipart([b"", msgpack.packb([topic, "note", {"value": payload}])])
