"""rpclib, blocking, with its defaults: one transport shared by all threads. The server is the async one; with
``plain`` its endpoints are plain functions, which run on threads."""

from __future__ import annotations

import rpclib
from benchmarks.peers.rpclib_async import DISTRIBUTIONS as DISTRIBUTIONS
from benchmarks.peers.rpclib_async import Echo
from benchmarks.peers.rpclib_async import serve as serve
from benchmarks.shapes import ThreadClient


class Client(ThreadClient):
    def open(self) -> None:
        place = self.place
        self._rpc = rpclib.sync.connect(place.url)
        self._rpc.open()
        if "inside" in place.flags:
            echo = Echo(place.tally().counter(0))
            for topic in place.topic_names():
                self._rpc.server(rpclib.Target(topic, server="s0"), [echo]).start()
        self._clients = {topic: self._rpc.client(topic) for topic in place.topic_names()}

    def echo(self, topic: str, payload: bytes) -> object:
        return self._clients[topic].call("echo", value=payload)

    def note(self, topic: str, payload: bytes) -> None:
        self._clients[topic].cast("note", value=payload)

    def tell(self, topic: str, payload: bytes) -> None:
        self._clients[topic].fanout("note", value=payload)
