"""pyzmq alone: one DEALER to the servers' ROUTERs over IPC, as much as ZeroMQ gives without a receiver between.

Blocking sockets in one thread, no event loop, no timeouts, no high-water mark; msgpack bodies, a correlation id in
front. Frames are sent and received singly, which is faster than ``*_multipart``. Several servers: the DEALER takes
them in turn. Fanout: one message to each, on a DEALER each.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import msgpack
import zmq

from benchmarks import shapes
from benchmarks.place import Place

DISTRIBUTIONS = ("pyzmq", "msgpack")


def socket(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    made = context.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.SNDHWM, 0)
    made.setsockopt(zmq.RCVHWM, 0)
    return made


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    pack, unpack = msgpack.Packer().pack, msgpack.unpackb
    router = socket(zmq.Context(), zmq.ROUTER)
    router.bind(f"ipc://{place.socket(place.index)}")
    recv, send, more = router.recv, router.send, zmq.SNDMORE
    ready()
    while True:
        sender = recv()
        number = recv()
        _topic, name, arguments = unpack(recv())
        if name == "echo":
            send(sender, more)
            send(number, more)
            send(pack(arguments["value"]))
        else:
            count()


class Client(shapes.Client):
    def open(self) -> None:
        self._pack, self._unpack = msgpack.Packer().pack, msgpack.unpackb
        self._numbers = itertools.count()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._dealer = socket(context, zmq.DEALER)
        self._each = []
        for index in range(self.place.servers):
            address = f"ipc://{self.place.socket(index)}"
            self._dealer.connect(address)
            one = socket(context, zmq.DEALER)
            one.connect(address)
            self._each.append(one)

    def call(self, n: int, in_flight: int, payload: bytes) -> None:
        recv, pending, unpack = self._dealer.recv, set[bytes](), self._unpack
        unsent = n - in_flight
        for _ in range(min(n, in_flight)):
            pending.add(self._send(payload))
        while pending:
            pending.remove(recv())
            if unpack(recv()) != payload:
                raise shapes.WrongAnswer
            if unsent > 0:
                unsent -= 1
                pending.add(self._send(payload))

    def latencies(self, n: int, payload: bytes) -> list[float]:
        times = []
        for _ in range(n):
            began = time.perf_counter()
            self.call(1, 1, payload)
            times.append(time.perf_counter() - began)
        return times

    def cast(self, n: int, payload: bytes) -> None:
        send, pack = self._dealer.send, self._pack
        for _ in range(n):
            send(b"", zmq.SNDMORE)
            send(pack([next(self.topics), "note", {"value": payload}]))

    def fanout(self, n: int, payload: bytes) -> None:
        for _ in range(n):
            body = self._pack([next(self.topics), "note", {"value": payload}])
            for one in self._each:
                one.send(b"", zmq.SNDMORE)
                one.send(body)

    def _send(self, payload: bytes) -> bytes:
        number = b"%d" % next(self._numbers)
        self._dealer.send(number, zmq.SNDMORE)
        self._dealer.send(self._pack([next(self.topics), "echo", {"value": payload}]))
        return number
