"""RPC by hand on stock pika: the fastest shape pika's documentation has, without any of what a library adds.

SelectConnection, direct reply-to, auto-ack on both sides, transient queues, the default exchange, msgpack, a
correlation id, no deadlines, no mandatory flag, no confirms. Calls in flight are a window kept in callbacks: no
future, no task. Fanout is a fanout exchange with a queue for each server. Heartbeats are off, so that nothing needs
the connection between measurements.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from benchmarks import shapes
from benchmarks.place import Place

DISTRIBUTIONS = ("pika", "msgpack")
REPLY_TO = "amq.rabbitmq.reply-to"


def connect(url: str, opened: Callable[[Channel], None]) -> SelectConnection:
    def failed(*reason: Any) -> None:
        raise ConnectionError(reason)

    def connected(connection: Any) -> None:
        connection.channel(on_open_callback=opened)

    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0
    return SelectConnection(
        parameters,
        on_open_callback=connected,
        on_open_error_callback=failed,
        on_close_callback=failed,
    )


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    pack, unpack = msgpack.Packer().pack, msgpack.unpackb

    def on_request(channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        name, arguments = unpack(body)
        if name == "echo":
            answer = pika.BasicProperties(correlation_id=properties.correlation_id)
            channel.basic_publish("", properties.reply_to, pack(arguments["value"]), answer)
        else:
            count()

    def opened(channel: Channel) -> None:
        left = itertools.count(1)
        own = f"{place.run}.fanout.{place.index}"

        def consuming(_: object) -> None:
            if next(left) == place.topics + 1:
                ready()

        for topic in place.topic_names():
            channel.queue_declare(topic)
            channel.basic_consume(topic, on_request, auto_ack=True, callback=consuming)
        channel.exchange_declare(f"{place.run}.fanout", "fanout")
        channel.queue_declare(own, exclusive=True)
        channel.queue_bind(own, f"{place.run}.fanout")
        channel.basic_consume(own, on_request, auto_ack=True, callback=consuming)

    connect(place.url, opened).ioloop.start()


class Client(shapes.Client):
    def open(self) -> None:
        self._pack, self._unpack = msgpack.Packer().pack, msgpack.unpackb
        self._numbers = itertools.count()
        self._connection = connect(self.place.url, self._opened)
        self._connection.ioloop.start()

    def _opened(self, channel: Channel) -> None:
        self._channel = channel
        stop = self._connection.ioloop.stop
        channel.basic_consume(REPLY_TO, self._on_reply, auto_ack=True, callback=lambda _: stop())

    def call(self, n: int, in_flight: int, payload: bytes) -> None:
        self._payload, self._pending, self._unsent = payload, set[str](), n
        for _ in range(min(n, in_flight)):
            self._send()
        self._connection.ioloop.start()

    def latencies(self, n: int, payload: bytes) -> list[float]:
        times = []
        for _ in range(n):
            began = time.perf_counter()
            self.call(1, 1, payload)
            times.append(time.perf_counter() - began)
        return times

    def cast(self, n: int, payload: bytes) -> None:
        for _ in range(n):
            self._channel.basic_publish("", next(self.topics), self._pack(["note", {"value": payload}]))

    def fanout(self, n: int, payload: bytes) -> None:
        for _ in range(n):
            self._channel.basic_publish(f"{self.place.run}.fanout", "", self._pack(["note", {"value": payload}]))

    def pause(self, seconds: float) -> None:
        self._connection.ioloop.call_later(seconds, self._connection.ioloop.stop)
        self._connection.ioloop.start()

    def _send(self) -> None:
        self._unsent -= 1
        number = str(next(self._numbers))
        self._pending.add(number)
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=number)
        body = self._pack(["echo", {"value": self._payload}])
        self._channel.basic_publish("", next(self.topics), body, properties)

    def _on_reply(self, channel: Channel, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self._pending.remove(properties.correlation_id)
        if self._unpack(body) != self._payload:
            raise shapes.WrongAnswer
        if self._unsent:
            self._send()
        elif not self._pending:
            self._connection.ioloop.stop()
