"""The same without asyncio: ``python examples/sync_client.py INSTANCE``."""

from __future__ import annotations

import sys

import rpclib


def main(instance_id: str) -> None:
    with rpclib.sync.connect() as rpc:
        place = rpc.client("scheduler", timeout=20).call("schedule", instance_id=instance_id)
        print(f"{place['instance']} runs on {place['host']} as {place['address']}")
        rpc.client("network").cast("release", instance_id=instance_id)


if __name__ == "__main__":
    main(sys.argv[1])
