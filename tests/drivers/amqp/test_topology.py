"""What the driver makes exist on the broker, and that every RabbitMQ up to 4.3 allows it."""

from __future__ import annotations

import asyncio

import pytest

from rpclib.address import Address, Kind
from rpclib.testing.waiting import tap
from rpclib_amqp import topology
from tests.drivers.amqp.session import SECONDS, everyone, inbox, one, ours, session
from tests.support.rabbit import Rabbit

ADDRESSES = [
    Address(Kind.ONE, "nova", "compute"),
    Address(Kind.ONE, "nova", "compute", "phantom"),
    Address(Kind.ALL, "nova", "compute"),
    Address(Kind.INBOX, "nova"),
]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_every_queue_is_legal_on_rabbitmq_4_3(address: Address) -> None:
    """4.3 refuses transient queues that are not exclusive, and what it calls deprecated arguments."""
    queue = topology.plan(address).queue
    assert queue.durable is not queue.exclusive
    assert not (queue.durable and queue.auto_delete), "it would go with its messages when its last server stops"
    assert set(queue.arguments) <= {"x-expires"}


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_no_name_exceeds_amqp(address: Address) -> None:
    """AMQP's short strings have 255 bytes; the longest legal names of rpclib fit."""
    key = "s" * 100 if address.key else ""
    plan = topology.plan(Address(address.kind, "e" * 60, "t" * 80, key))
    assert max(map(len, (plan.exchange.name, plan.key, plan.queue.name))) <= 255


def test_each_service_is_a_few_durable_names() -> None:
    """The names operators see, and the rule that only requests come back to their sender."""
    plans = [topology.plan(address) for address in ADDRESSES]
    assert [(plan.exchange.name, plan.exchange.type) for plan in plans] == [
        ("nova", "topic"),
        ("nova", "topic"),
        ("nova.compute.fanout", "fanout"),
        ("", "direct"),
    ]
    assert [plan.queue.name for plan in plans] == ["nova.compute", "nova.compute.phantom", "", ""]
    assert [plan.key for plan in plans] == ["compute", "compute.phantom", "", ""]
    assert [plan.mandatory for plan in plans] == [True, True, False, False]
    assert [plan.acknowledged for plan in plans] == [True, True, True, False]


async def test_broker_has_exactly_this(rabbit: Rabbit, exchange: str) -> None:
    """A server with all its addresses, and a client: exchanges, queues, bindings and consumers as documented."""
    async with session(rabbit.url, connection_name="mine") as (driver, _):
        await tap(driver, one(exchange), prefetch=7)
        await tap(driver, one(exchange, server="phantom"), prefetch=7)
        fanout = await tap(driver, everyone(exchange), prefetch=7)
        replies = await tap(driver, inbox(exchange), prefetch=0)
        private = {ours(fanout).queue, ours(replies).queue}
        assert replies.address.key == ours(replies).queue

        exchanges = await rabbit.list("exchanges", "name", "type", "durable", "auto_delete")
        assert sorted(list(row.values()) for row in exchanges if row["name"].startswith(exchange)) == [
            [exchange, "topic", True, False],
            [f"{exchange}.compute.fanout", "fanout", True, False],
        ]

        def mine(name: str) -> bool:
            return name.startswith(exchange) or name in private

        queues = await rabbit.list("queues", "name", "durable", "exclusive", "auto_delete", "arguments")
        expires = [["x-expires", "signedint", 300_000]]
        assert {row["name"]: list(row.values())[1:] for row in queues if mine(row["name"])} == {
            f"{exchange}.compute": [True, False, False, expires],
            f"{exchange}.compute.phantom": [True, False, False, expires],
            ours(fanout).queue: [False, True, True, []],
            ours(replies).queue: [False, True, True, []],
        }

        bindings = await rabbit.list("bindings", "source_name", "destination_name", "routing_key")
        assert {
            tuple(row.values()) for row in bindings if mine(row["destination_name"]) and row["source_name"]
        } == {
            (exchange, f"{exchange}.compute", "compute"),
            (exchange, f"{exchange}.compute.phantom", "compute.phantom"),
            (f"{exchange}.compute.fanout", ours(fanout).queue, ""),
        }

        consumers = await rabbit.list("consumers", "queue_name", "ack_required", "prefetch_count")
        assert sorted(list(row.values()) for row in consumers if mine(row["queue_name"])) == sorted(
            [
                [f"{exchange}.compute", True, 7],
                [f"{exchange}.compute.phantom", True, 7],
                [ours(fanout).queue, True, 7],
                [ours(replies).queue, False, 0],
            ]
        )

        async def names() -> list[str]:
            rows = await rabbit.list("connections", "client_properties")
            properties = [{key: value for key, _, value in row["client_properties"]} for row in rows]
            return sorted(each["connection_name"] for each in properties)

        async with asyncio.timeout(SECONDS):  # those of the test before are listed for a moment after their end
            while await names() != ["mine (consuming)", "mine (publishing)"]:
                pass
