"""Three small services that call each other, as those of a cloud would."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import rpclib

HOSTS = ["alpha", "beta"]

Say = Callable[[str, str], None]
"""Shows that somebody did something: (who, what)."""


class Compute:
    """Runs instances on one host. There is one server of it on each host."""

    def __init__(self, rpc: rpclib.Transport, host: str, say: Say) -> None:
        self._network = rpc.client("network")
        self._host = host
        self._say = say
        self._instances: dict[str, str] = {}

    @rpclib.expose
    async def boot(self, instance_id: str) -> dict[str, Any]:
        """Start an instance; its address comes from another service, within the time this call has left."""
        self._instances[instance_id] = await self._network.call("allocate", instance_id=instance_id)
        return {"instance": instance_id, "host": self._host, "address": self._instances[instance_id]}

    @rpclib.expose(idempotent=True)
    def list_instances(self) -> dict[str, str]:
        """A plain function: it runs on a thread, so it may block."""
        return self._instances

    @rpclib.expose
    async def destroy(self, instance_id: str) -> None:
        if instance_id not in self._instances:
            raise LookupError(f"{instance_id} does not run on {self._host}")
        del self._instances[instance_id]

    @rpclib.expose
    async def refresh(self) -> None:
        self._say(f"compute.{self._host}", "refreshed what it knows")

    @rpclib.expose
    async def migrate(self, instance_id: str) -> str:
        await asyncio.sleep(1.0)
        return f"{instance_id} moved"


class Network:
    """Hands out addresses."""

    def __init__(self) -> None:
        self._addresses = (f"10.0.0.{number}" for number in itertools.count(2))

    @rpclib.expose
    async def allocate(self, instance_id: str) -> str:
        return next(self._addresses)


class Scheduler:
    """Chooses the host for an instance, in turn."""

    def __init__(self, rpc: rpclib.Transport, hosts: list[str]) -> None:
        self._compute = rpc.client("compute")
        self._hosts = itertools.cycle(hosts)

    @rpclib.expose
    async def place(self, instance_id: str) -> dict[str, Any]:
        host: dict[str, Any] = await self._compute.to(next(self._hosts)).call("boot", instance_id=instance_id)
        return host
