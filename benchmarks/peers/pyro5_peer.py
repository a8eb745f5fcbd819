"""Pyro5 over a Unix socket: a Daemon with an exposed object, one Proxy for each calling thread, as it requires.

Serializer msgpack, the fastest it has for bytes; a server thread for each proxy; casts are ``@oneway`` calls.
Several topics or servers are left out: a proxy knows one object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import Pyro5.api

from benchmarks.place import Place
from benchmarks.shapes import ThreadClient

DISTRIBUTIONS = ("Pyro5", "msgpack")
OBJECT = "echo"

Pyro5.api.config.SERIALIZER = "msgpack"
Pyro5.api.config.THREADPOOL_SIZE = 600


class Echo:
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    @Pyro5.api.expose  # type: ignore[untyped-decorator]
    def echo(self, value: bytes) -> bytes:
        return value

    @Pyro5.api.expose  # type: ignore[untyped-decorator]
    @Pyro5.api.oneway  # type: ignore[untyped-decorator]
    def note(self, value: bytes) -> None:
        self._count()


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    daemon = Pyro5.api.Daemon(unixsocket=place.socket(0))
    daemon.register(Echo(count), OBJECT)
    ready()
    daemon.requestLoop()


class Client(ThreadClient):
    def open(self) -> None:
        self._own = threading.local()
        self._proxy()

    def _proxy(self) -> Pyro5.api.Proxy:
        proxy = getattr(self._own, "proxy", None)
        if proxy is None:
            proxy = self._own.proxy = Pyro5.api.Proxy(f"PYRO:{OBJECT}@./u:{self.place.socket(0)}")
            proxy._pyroBind()
        return proxy

    def echo(self, topic: str, payload: bytes) -> object:
        return self._proxy().echo(payload)

    def note(self, topic: str, payload: bytes) -> None:
        self._proxy().note(payload)
