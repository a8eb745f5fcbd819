"""Who is measured. Each peer is a file of its own here; this is the list, in the order of the report."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass

from benchmarks.peers import librabbitmq
from benchmarks.place import Place

ASYNC = frozenset({"latency", "calls", "casts", "payload", "pending"})
BLOCKING = frozenset({"latency", "calls", "casts", "payload", "threads"})
BY_HAND = frozenset({"latency", "calls", "casts", "payload"})
MANY = frozenset({"fanout", "workers", "topics"})


@dataclass(frozen=True)
class Peer:
    """One competitor."""

    name: str
    module: str
    needs: str
    """The module that must be importable, and what installs it."""
    family: str
    """Peers of one family are compared with its baseline."""
    broker: str
    """Which of the brokers it uses: rabbitmq, nats, receiver, or none."""
    does: frozenset[str]
    """Kinds of work it takes part in."""
    flags: tuple[str, ...] = ()
    widest: int = 512
    """Calls in flight beyond which it is not measured."""

    @property
    def inside(self) -> bool:
        """Whether client and server are one process."""
        return "inside" in self.flags

    def missing(self) -> str | None:
        """Why it cannot take part; None when it can."""
        if self.module == "librabbitmq":
            return librabbitmq.missing()
        if importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed"
        return None

    def command(self, place: Place) -> list[str]:
        """How its process is started."""
        if self.module == "librabbitmq":
            return librabbitmq.command(place)
        return [sys.executable, "-m", "benchmarks.child", place.encode()]


AMQP, ZMQ = "over RabbitMQ", "without RabbitMQ"
BASELINES = {AMQP: "pika", ZMQ: "pyzmq"}
"""Hand-written code: what a family's ratios are ratios of."""

PEERS = (
    Peer("rpclib amqp", "rpclib_async", "rpclib_amqp", AMQP, "rabbitmq", ASYNC | MANY),
    Peer("rpclib amqp sync", "rpclib_sync", "rpclib_amqp", AMQP, "rabbitmq", BLOCKING),
    Peer("rpclib amqp plain", "rpclib_sync", "rpclib_amqp", AMQP, "rabbitmq", BLOCKING, ("plain",)),
    Peer("pika", "pika_by_hand", "pika", AMQP, "rabbitmq", BY_HAND | MANY),
    Peer("pika again", "pika_by_hand", "pika", AMQP, "rabbitmq", BY_HAND | MANY),
    Peer("librabbitmq (C)", "librabbitmq", "", AMQP, "rabbitmq", BY_HAND | MANY),
    Peer("oslo.messaging", "oslo", "oslo_messaging", AMQP, "rabbitmq", BLOCKING | MANY),
    Peer("aio-pika", "aio_pika_rpc", "aio_pika", AMQP, "rabbitmq", ASYNC | {"workers", "topics"}),
    Peer("FastStream", "faststream_rpc", "faststream", AMQP, "rabbitmq", BY_HAND | MANY, widest=1),
    Peer("rpclib zmq", "rpclib_async", "rpclib_zmq", ZMQ, "receiver", ASYNC | MANY),
    Peer("rpclib zmq sync", "rpclib_sync", "rpclib_zmq", ZMQ, "receiver", BLOCKING),
    Peer("rpclib fake", "rpclib_async", "rpclib", ZMQ, "none", BY_HAND | {"topics"}, ("inside",)),
    Peer("rpclib fake sync", "rpclib_sync", "rpclib", ZMQ, "none", BLOCKING, ("inside",)),
    Peer("pyzmq", "pyzmq_on_loop", "zmq", ZMQ, "none", ASYNC | MANY),
    Peer("pyzmq again", "pyzmq_on_loop", "zmq", ZMQ, "none", ASYNC | MANY),
    Peer("pyzmq blocking", "pyzmq_bare", "zmq", ZMQ, "none", BY_HAND | MANY),
    Peer("zmq.asyncio", "zmq_asyncio", "zmq", ZMQ, "none", BY_HAND | {"workers"}),
    Peer("zerorpc", "zerorpc_peer", "zerorpc", ZMQ, "none", BLOCKING),
    Peer("Pyro5", "pyro5_peer", "Pyro5", ZMQ, "none", BLOCKING),
    Peer("nats-py", "nats_peer", "nats", ZMQ, "nats", ASYNC | MANY),
)
