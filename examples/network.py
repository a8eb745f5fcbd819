"""The network service: ``python examples/network.py``."""

from __future__ import annotations

import asyncio
import itertools

import rpclib


class Network:
    """Hands out addresses; the same instance gets the same one again."""

    target = rpclib.Target(version="1.0")

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._numbers = itertools.count(2)

    @rpclib.expose(idempotent=True)
    async def allocate(self, instance_id: str) -> str:
        if instance_id not in self._addresses:
            self._addresses[instance_id] = f"10.0.0.{next(self._numbers)}"
        return self._addresses[instance_id]

    @rpclib.expose
    async def release(self, instance_id: str) -> None:
        self._addresses.pop(instance_id, None)


async def main() -> None:
    async with rpclib.connect() as rpc, rpc.server("network", [Network()]) as server:
        print("network serves", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
