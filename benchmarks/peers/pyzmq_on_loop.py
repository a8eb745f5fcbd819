"""pyzmq by hand on an event loop: DEALER to ROUTER over IPC, a future for each call, as asyncio programs need it.

Not zmq.asyncio, which is slower, but the sockets' file descriptors watched by the loop and drained until nothing is
left. Raw frames, no timeouts, no high-water mark, msgpack bodies, a correlation id in front. Several servers: the
DEALER takes them in turn. Fanout: one message to each, on a DEALER each.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import msgpack
import zmq

from benchmarks.peers.pyzmq_bare import DISTRIBUTIONS as DISTRIBUTIONS
from benchmarks.peers.pyzmq_bare import socket
from benchmarks.place import Place
from benchmarks.shapes import AsyncClient


class Watched:
    """A socket that hands everything it receives to ``receive``, a call each with the socket readable."""

    def __init__(self, made: zmq.Socket[bytes], receive: Callable[[], None]) -> None:
        self.socket = made
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._looking = False
        self._loop.add_reader(made.FD, self._drain)

    def look(self) -> None:
        """Sending may swallow the descriptor's signal that something arrived: look again, once a turn."""
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._looking = False
        try:
            while True:
                self._receive()
        except zmq.Again:
            return


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    pack, unpack = msgpack.Packer().pack, msgpack.unpackb
    router = socket(zmq.Context(), zmq.ROUTER)
    router.bind(f"ipc://{place.socket(place.index)}")
    recv, send, more = router.recv, router.send, zmq.SNDMORE

    def receive() -> None:
        sender = recv(zmq.NOBLOCK)
        number = recv()
        _topic, name, arguments = unpack(recv())
        if name == "echo":
            send(sender, more)
            send(number, more)
            send(pack(arguments["value"]))
        else:
            count()

    async def main() -> None:
        Watched(router, receive).look()
        ready()
        await asyncio.Event().wait()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pack, self._unpack = msgpack.Packer().pack, msgpack.unpackb
        self._numbers = itertools.count()
        self._pending: dict[bytes, asyncio.Future[object]] = {}
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._dealer = socket(context, zmq.DEALER)
        self._each = [socket(context, zmq.DEALER) for _ in range(self.place.servers)]
        for index, one in enumerate(self._each):
            self._dealer.connect(f"ipc://{self.place.socket(index)}")
            one.connect(f"ipc://{self.place.socket(index)}")
        self._watched = Watched(self._dealer, self._receive)

    def _receive(self) -> None:
        number = self._dealer.recv(zmq.NOBLOCK)
        self._pending.pop(number).set_result(self._unpack(self._dealer.recv()))

    async def echo(self, topic: str, payload: bytes) -> object:
        number = b"%d" % next(self._numbers)
        future = self._pending[number] = self._loop.create_future()
        self._dealer.send(number, zmq.SNDMORE)
        self._dealer.send(self._pack([topic, "echo", {"value": payload}]))
        self._watched.look()
        return await future

    async def note(self, topic: str, payload: bytes) -> None:
        self._dealer.send(b"", zmq.SNDMORE)
        self._dealer.send(self._pack([topic, "note", {"value": payload}]))

    async def tell(self, topic: str, payload: bytes) -> None:
        body = self._pack([topic, "note", {"value": payload}])
        for one in self._each:
            one.send(b"", zmq.SNDMORE)
            one.send(body)
