"""Memory for long messages: the process keeps what it freed, and only once it has met one."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import asyncio, resource, sys
import rpclib

class Echo:
    @rpclib.expose
    async def echo(self, value: bytes) -> bytes:
        return value

def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

async def main() -> None:
    body = bytes(int(sys.argv[1]))
    async with rpclib.connect("fake://") as rpc, rpc.server("t", [Echo()]):
        client = rpc.client("t")
        await asyncio.gather(*(client.call("echo", value=body) for _ in range(20)))
        before = faults()
        for _ in range(5):
            await asyncio.gather(*(client.call("echo", value=body) for _ in range(4)))
        print((faults() - before) // 20, rpclib.memory.keep_freed.cache_info().currsize)

asyncio.run(main())
"""


def _run(size: int) -> tuple[int, int]:
    """Page faults a call, and whether memory was kept."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(size)], capture_output=True, text=True, check=True, timeout=60
    )
    faults, kept = done.stdout.split()
    return int(faults), int(kept)


def test_long_messages_do_not_get_their_memory_anew() -> None:
    faults, kept = _run(1_000_000)
    assert kept == 1
    assert faults < 100, "1 MB is 245 pages, several times a call"


def test_a_process_without_long_messages_is_left_alone() -> None:
    assert _run(1_000)[1] == 0
