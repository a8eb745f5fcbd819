"""What exists on the broker for each address. Data only: the words are executed elsewhere.

Everything here is a constant of the topology's version. None of it is an option, because two processes that
declared one queue with different arguments would lock each other out (406 PRECONDITION_FAILED). And all of it
is legal on RabbitMQ 3.8 to 4.3: queues are durable or exclusive, nothing else.

=====================  =========================================  ============================================
address                queue                                      bound to
=====================  =========================================  ============================================
ONE, any server        ``<exchange>.<topic>``, durable            topic exchange ``<exchange>``, key ``<topic>``
ONE, one server        ``<exchange>.<topic>.<server>``, durable   the same, key ``<topic>.<server>``
ALL                    named by the broker, exclusive             fanout exchange ``<exchange>.<topic>.fanout``
INBOX                  named by the broker, exclusive             the broker's default exchange
=====================  =========================================  ============================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from rpclib.address import Address, Kind

VERSION = 1
UNUSED_QUEUE_EXPIRES = 300
"""Seconds after which the broker deletes a durable queue that has no consumer, with what waits in it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Always durable. The empty name is the default exchange, which exists and takes no bindings."""

    name: str
    type: Literal["topic", "fanout", "direct"]


@dataclass(frozen=True, slots=True)
class Queue:
    """``name`` "" lets the broker choose one. An exclusive queue goes with its last consumer or connection."""

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an address is realised: publish to ``exchange`` with ``key``; receive from ``queue``, bound likewise.

    ``acknowledged``: the consumer acknowledges. ``mandatory``: what reaches no queue comes back to the sender.
    """

    exchange: Exchange
    key: str
    queue: Queue
    acknowledged: bool = True
    mandatory: bool = False


INBOX_KEYS = re.compile(r"amq\.gen-[A-Za-z0-9_-]{8,100}")
"""The names that the broker gives to inboxes. It lets nobody else declare one that begins so."""
DEFAULT_EXCHANGE = Exchange("", "direct")
SHARED_ARGUMENTS = {"x-expires": UNUSED_QUEUE_EXPIRES * 1000}
PRIVATE_QUEUE = Queue("", exclusive=True, auto_delete=True)


def plan(address: Address) -> Plan:
    """The plan of one address. Its names fit AMQP's 255 bytes because `rpclib.address` limits them."""
    if address.kind is Kind.INBOX:
        return Plan(DEFAULT_EXCHANGE, address.key, PRIVATE_QUEUE, acknowledged=False)
    if address.kind is Kind.ALL:
        return Plan(Exchange(f"{address.exchange}.{address.topic}.fanout", "fanout"), "", PRIVATE_QUEUE)
    key = f"{address.topic}.{address.key}" if address.key else address.topic
    queue = Queue(f"{address.exchange}.{key}", durable=True, arguments=SHARED_ARGUMENTS)
    return Plan(Exchange(address.exchange, "topic"), key, queue, mandatory=True)
