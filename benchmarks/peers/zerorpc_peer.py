"""zerorpc over IPC: a Server and a Client as its documentation shows; casts go through its Pusher and Puller.

Calls in flight are greenlets. Heartbeats stay on, timeouts are 60 s. Several topics or servers are left out:
zerorpc has none.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.select
import zerorpc

from benchmarks.place import Place
from benchmarks.shapes import ThreadClient

DISTRIBUTIONS = ("zerorpc", "gevent", "pyzmq")


class Echo:
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def echo(self, value: bytes) -> bytes:
        return value

    def note(self, value: bytes) -> None:
        self._count()


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    server, puller = zerorpc.Server(Echo(count)), zerorpc.Puller(Echo(count))
    server.bind(f"ipc://{place.socket(0)}")
    puller.bind(f"ipc://{place.socket(0)}.casts")
    ready()
    gevent.joinall([gevent.spawn(server.run), gevent.spawn(puller.run)])


class Client(ThreadClient):
    def open(self) -> None:
        self._client = zerorpc.Client(f"ipc://{self.place.socket(0)}", timeout=60)
        self._pusher = zerorpc.Pusher()
        self._pusher.connect(f"ipc://{self.place.socket(0)}.casts")

    def echo(self, topic: str, payload: bytes) -> object:
        return self._client.echo(payload)

    def note(self, topic: str, payload: bytes) -> None:
        self._pusher.note(payload)

    def side_by_side(self, work: Callable[[], None], width: int) -> None:
        gevent.joinall([gevent.spawn(work) for _ in range(width)], raise_error=True)

    def pause(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def idle(self, fd: int) -> None:
        gevent.select.select([fd], [], [])
