"""oslo.messaging on its rabbit driver, as OpenStack's services use it: a blocking client, the threading executor.

Its default of 64 executor threads; a pool of as many connections as calls can be in flight; the rest is default.
Its serializer is JSON, which has no bytes: the payload travels as text of the same length.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import oslo_messaging
from oslo_config import cfg

from benchmarks.place import Place
from benchmarks.shapes import ThreadClient

DISTRIBUTIONS = ("oslo.messaging", "kombu", "amqp")


def transport_of(place: Place) -> oslo_messaging.Transport:
    conf = cfg.CONF
    conf(args=[], default_config_files=[])
    transport = oslo_messaging.get_rpc_transport(conf, url=place.url.replace("amqp://", "rabbit://"))
    conf.set_override("rpc_conn_pool_size", 520, group="oslo_messaging_rabbit")
    return transport


class Echo:
    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def echo(self, context: dict[str, object], value: str) -> str:
        return value

    def note(self, context: dict[str, object], value: str) -> None:
        self._count()


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    transport = transport_of(place)
    for topic in place.topic_names():
        target = oslo_messaging.Target(topic=topic, server=f"s{place.index}")
        oslo_messaging.get_rpc_server(transport, target, [Echo(count)], executor="threading").start()
    ready()
    threading.Event().wait()


class Client(ThreadClient):
    def open(self) -> None:
        transport = transport_of(self.place)
        self._clients = {
            topic: oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic=topic))
            for topic in self.place.topic_names()
        }
        self._fanouts = {topic: client.prepare(fanout=True) for topic, client in self._clients.items()}

    def echo(self, topic: str, payload: bytes) -> object:
        return self._clients[topic].call({}, "echo", value=payload.decode()).encode()

    def note(self, topic: str, payload: bytes) -> None:
        self._clients[topic].cast({}, "note", value=payload.decode())

    def tell(self, topic: str, payload: bytes) -> None:
        self._fanouts[topic].cast({}, "note", value=payload.decode())
