"""FastStream on RabbitMQ: ``broker.request`` for calls, ``broker.publish`` for casts, a fanout exchange for fanout.

Bodies are bytes, which FastStream passes through. Its request holds a lock while it waits, so that one is in flight
at a time whatever is asked for. Logging is off, prefetch is 256, publisher confirms are off, acknowledgement comes
first as in rpclib.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

from benchmarks.place import Place
from benchmarks.shapes import AsyncClient

DISTRIBUTIONS = ("faststream", "aio-pika")


def broker_of(place: Place) -> RabbitBroker:
    channel = Channel(prefetch_count=256, publisher_confirms=False)
    return RabbitBroker(place.url, logger=None, default_channel=channel, ack_policy=AckPolicy.ACK_FIRST)


def fanout_of(place: Place) -> RabbitExchange:
    return RabbitExchange(f"{place.run}.fanout", type=ExchangeType.FANOUT)


def serve(place: Place, count: Callable[[], None], ready: Callable[[], None]) -> None:
    broker = broker_of(place)

    async def echo(body: bytes) -> bytes:
        return body

    async def note(body: bytes) -> None:
        count()

    for topic in place.topic_names():
        broker.subscriber(topic)(echo)
        broker.subscriber(f"{topic}-note")(note)
    own = RabbitQueue(f"{place.run}.fanout.{place.index}", exclusive=True)
    broker.subscriber(own, fanout_of(place))(note)

    async def main() -> None:
        await broker.start()
        ready()
        await asyncio.Event().wait()

    asyncio.run(main())


class Client(AsyncClient):
    async def connect(self) -> None:
        self._broker = broker_of(self.place)
        await self._broker.start()
        self._fanout = fanout_of(self.place)
        await self._broker.declare_exchange(self._fanout)

    async def echo(self, topic: str, payload: bytes) -> object:
        return (await self._broker.request(payload, topic, timeout=60)).body

    async def note(self, topic: str, payload: bytes) -> None:
        await self._broker.publish(payload, f"{topic}-note")

    async def tell(self, topic: str, payload: bytes) -> None:
        await self._broker.publish(payload, exchange=self._fanout)
