"""A server process for the tests: ``worker.py URL TOPIC NAME SETTINGS``. Prints "ready" once it serves."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time

import rpclib


class Work:
    def __init__(self, name: str) -> None:
        self._name = name
        self._notes: list[int] = []
        self._pressed = 0

    @rpclib.expose
    async def who(self) -> str:
        return self._name

    @rpclib.expose(idempotent=True)
    async def again(self) -> str:
        return self._name

    @rpclib.expose
    async def echo(self, value: bytes) -> bytes:
        return value

    @rpclib.expose
    async def pid(self) -> int:
        return os.getpid()

    @rpclib.expose
    async def sleep(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return self._name

    @rpclib.expose
    async def block(self, seconds: float) -> str:
        """Block the event loop."""
        time.sleep(seconds)  # noqa: ASYNC251
        return self._name

    @rpclib.expose
    async def hold_gil(self, seconds: int) -> str:
        """Let no Python code of this process run."""
        ctypes.PyDLL(None).sleep(seconds)
        return self._name

    @rpclib.expose
    async def note(self, number: int, pause: float = 0.0, pad: bytes = b"") -> None:
        await asyncio.sleep(pause)
        self._notes.append(number)

    @rpclib.expose
    async def notes(self) -> list[int]:
        return self._notes


async def main() -> None:
    url, topic, name, settings = sys.argv[1:]
    options = json.loads(settings)
    async with rpclib.connect(url) as rpc:
        server = rpc.server(rpclib.Target(topic, server=name), [Work(name)], **options)
        await server.start()
        print("ready", flush=True)  # noqa: T201
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
