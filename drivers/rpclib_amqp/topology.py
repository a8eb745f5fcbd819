"""The exchange, queue and binding of each address. Data only: `control` makes the declarations.

All values are constants of the topology's version, not options: two processes that declare one queue with different
arguments lock each other out (406 PRECONDITION_FAILED). All values are legal on RabbitMQ 3.8 to 4.3: every queue is
either durable or exclusive.

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
"""Seconds after which the broker deletes a durable queue without consumers, and the messages in it."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange. The empty name is the default exchange, which always exists and takes no bindings."""

    name: str
    type: Literal["topic", "fanout", "direct"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue. With an empty ``name``, the broker chooses one. An exclusive queue is deleted with its last consumer
    or its connection."""

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """How an address is realised: publish to ``exchange`` with ``key``; receive from ``queue``, which is bound to
    ``exchange`` with ``key``.

    ``acknowledged``: the consumer acknowledges messages. ``mandatory``: a message that reaches no queue is returned
    to its sender.
    """

    exchange: Exchange
    key: str
    queue: Queue
    acknowledged: bool = True
    mandatory: bool = False


INBOX_KEYS = re.compile(r"amq\.gen-[A-Za-z0-9_-]{8,100}")
"""The names that the broker gives to inboxes. Clients cannot declare queues with the prefix ``amq.``."""
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
