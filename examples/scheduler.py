"""The scheduler service: ``python examples/scheduler.py``."""

from __future__ import annotations

import asyncio

import rpclib


class Scheduler:
    """Chooses the host with the fewest instances, and has them started there."""

    target = rpclib.Target(version="1.0")

    def __init__(self, rpc: rpclib.Transport) -> None:
        self._compute = rpc.client("compute", version="1.0", route_grace=0.5)
        self.instances: dict[str, int] = {}

    @rpclib.expose
    async def host_up(self, host: str) -> None:
        self.instances.setdefault(host, 0)

    @rpclib.expose
    async def hosts(self) -> list[str]:
        return sorted(self.instances)

    @rpclib.expose
    async def schedule(self, instance_id: str) -> dict[str, str]:
        """Start an instance somewhere; a host that is gone is forgotten and the next one tried."""
        while self.instances:
            host = min(self.instances, key=lambda name: self.instances[name])
            self.instances[host] += 1
            try:
                placed: dict[str, str] = await self._compute.to(host).call("boot", instance_id=instance_id)
                return placed
            except rpclib.NoServer:
                self.instances.pop(host, None)
        raise RuntimeError("no host is left")

    async def discover(self) -> None:
        """Have all hosts announce themselves."""
        await self._compute.fanout("announce")


async def main() -> None:
    async with rpclib.connect() as rpc:
        scheduler = Scheduler(rpc)
        async with rpc.server("scheduler", [scheduler]) as server:
            await scheduler.discover()
            print("scheduler serves", flush=True)
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
