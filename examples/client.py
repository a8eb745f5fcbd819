"""Start instances, all at once: ``python examples/client.py INSTANCE...``."""

from __future__ import annotations

import asyncio
import sys

import rpclib


async def main(instance_ids: list[str]) -> None:
    async with rpclib.connect() as rpc:
        scheduler = rpc.client("scheduler", timeout=20)
        compute = rpc.client("compute", timeout=5)
        placed = await asyncio.gather(*(scheduler.call("schedule", instance_id=name) for name in instance_ids))
        for place in placed:
            snapshot = await compute.to(place["host"]).call("snapshot", instance_id=place["instance"])
            print(f"{place['instance']} runs on {place['host']} as {place['address']}; snapshot {snapshot}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
