"""The services of the demo: in this process, or where the backend reaches that far each in one of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import rpclib
from rpclib.cli.command import quiet
from rpclib.cli.demo.services import HOSTS, Compute, Network, Scheduler

_READY = "ready"
NAMES = [*(f"compute.{host}" for host in HOSTS), "network", "scheduler"]
Say = Callable[[str, str], None]


@asynccontextmanager
async def here(rpc: rpclib.Transport, say: Say) -> AsyncIterator[None]:
    """All services in this process."""
    async with AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context(_server(rpc, name, say))
        yield


@asynccontextmanager
async def processes(url: str, exchange: str, say: Say) -> AsyncIterator[None]:
    """Each service in a process of its own; they are stopped in the end."""
    # By the environment, because everybody may read the arguments of a process, and the URL may hold a password.
    environment = {**os.environ, "RPCLIB_URL": url, "RPCLIB_EXCHANGE": exchange}
    command = [sys.executable, "-m", "rpclib.cli.demo.processes"]
    started: list[asyncio.subprocess.Process] = []
    readers: list[asyncio.Task[None]] = []
    try:
        for name in NAMES:
            pipe = asyncio.subprocess.PIPE
            started.append(await asyncio.create_subprocess_exec(*command, name, env=environment, stdout=pipe))
        for name, process in zip(NAMES, started, strict=True):
            assert process.stdout is not None
            if (await process.stdout.readline()).decode().strip() != _READY:
                raise rpclib.Unreachable(f"the demo's {name} did not start; what it said is above")
            readers.append(asyncio.create_task(_listen(name, process.stdout, say)))
        yield
    finally:
        for process in started:
            if process.returncode is None:
                process.terminate()
        await asyncio.gather(*(process.wait() for process in started), *readers)


async def _listen(name: str, stdout: asyncio.StreamReader, say: Say) -> None:
    async for line in stdout:
        say(name, line.decode().strip())


def _server(rpc: rpclib.Transport, name: str, say: Say) -> rpclib.Server:
    topic, _, host = name.partition(".")
    if topic == "compute":
        return rpc.server(rpclib.Target(topic, server=host), [Compute(rpc, host, say)])
    return rpc.server(topic, [Network() if topic == "network" else Scheduler(rpc, HOSTS)])


async def _serve(name: str) -> None:
    """One service, as a program; it says what it does on its standard output, a line each."""

    def say(who: str, what: str) -> None:
        sys.stdout.write(f"{what}\n")
        sys.stdout.flush()

    async with rpclib.connect(timeout=10.0, grace=2.0) as rpc, _server(rpc, name, say) as server:
        say(name, _READY)
        await server.serve_forever()


if __name__ == "__main__":
    quiet()  # what fails here is shown by the one who asked for it
    try:
        asyncio.run(_serve(sys.argv[1]))
    except rpclib.RpcError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
