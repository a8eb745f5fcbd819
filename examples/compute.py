"""The compute service of one host: ``python examples/compute.py HOST``."""

from __future__ import annotations

import asyncio
import sys

import rpclib


class Compute:
    """Runs the instances of one host."""

    target = rpclib.Target(version="1.1")

    def __init__(self, rpc: rpclib.Transport, host: str) -> None:
        self.host = host
        self.instances: dict[str, str] = {}
        self._network = rpc.client("network", version="1.0")
        self._schedulers = rpc.client("scheduler")

    @rpclib.expose
    async def boot(self, instance_id: str) -> dict[str, str]:
        """Start an instance and return where it runs and under which address."""
        self.instances[instance_id] = await self._network.call("allocate", instance_id=instance_id)
        return {"instance": instance_id, "host": self.host, "address": self.instances[instance_id]}

    @rpclib.expose(idempotent=True)
    def snapshot(self, instance_id: str) -> str:
        """A plain function: it may block, it runs on a thread."""
        if instance_id not in self.instances:
            raise LookupError(f"{instance_id} does not run on {self.host}")
        return f"{instance_id}@{self.host}"

    @rpclib.expose
    async def announce(self) -> None:
        """Tell all schedulers that this host is there."""
        await self._schedulers.fanout("host_up", host=self.host)


async def main(host: str) -> None:
    async with rpclib.connect() as rpc:
        compute = Compute(rpc, host)
        async with rpc.server(rpclib.Target("compute", server=host), [compute]) as server:
            await compute.announce()
            print(f"compute serves on {host}", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
