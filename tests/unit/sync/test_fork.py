"""Forked children: the blocking API opens a connection of its own there, the async one says what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

PRELUDE = """
import asyncio, multiprocessing, os, sys, threading, warnings
import rpclib
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons dislike forking with threads at all

class Service:
    def __init__(self, name):
        self.name = name
    @rpclib.expose
    def who(self):
        return self.name

def told(error, use):
    try:
        use()
    except error as caught:
        return str(caught)
    raise AssertionError("nothing was raised")

def fork(child):
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0, "the child failed"
    else:
        code = 1
        try:
            child()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
"""

PROGRAMS = {
    "the child connects anew and the parent goes on": """
with rpclib.sync.connect("fake://", timeout=5, route_grace=0.1) as rpc, rpc.server("t", [Service("parent")]):
    client = rpc.client("t")
    assert client.call("who") == "parent"
    transport = rpc._transport

    def child():
        told(rpclib.NoServer, lambda: client.call("who"))  # the hub is this process's own
        assert rpc._transport is not transport
        with rpc.server("t", [Service("child")]):
            assert client.call("who") == "child"
            assert client.to("x").target.server == "x"
            assert client.prepare(timeout=1).call("who") == "child"
        rpc.close()

    for _ in range(3):
        fork(child)
        assert client.call("who") == "parent"
    assert rpc._transport is transport
""",
    "many threads of the child share one new connection": """
with rpclib.sync.connect("fake://", timeout=5) as rpc:
    def child():
        rpc.server("t", [Service("child")]).start()
        first = rpc._transport
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(rpc.client("t").call("who"))) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert answers == ["child"] * 8
        assert rpc._transport is first
    fork(child)
""",
    "closing in the child leaves the parent's alone": """
rpc = rpclib.sync.connect("fake://", timeout=5)
rpc.open()
server = rpc.server("t", [Service("parent")])
server.start()

def child():
    server.stop()
    assert "make a new one" in told(rpclib.ForkError, server.start)
    assert "make a new one" in told(rpclib.ForkError, server.wait)
    assert "make a new one" in told(rpclib.ForkError, server.serve_forever)
    rpc.close()
    told(rpclib.TransportClosed, lambda: rpc.client("t").call("who"))

fork(child)
assert rpc.client("t").call("who") == "parent"
rpc.close()
""",
    "leaving the with blocks in the child": """
with rpclib.sync.connect("fake://", timeout=5) as rpc:
    with rpc.server("t", [Service("parent")]):
        pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        rpc.server("t", [Service("parent again")]).start()
        assert rpc.client("t").call("who") == "parent again"
""",
    "a fork while other threads call": """
with rpclib.sync.connect("fake://", timeout=5) as rpc, rpc.server("t", [Service("parent")]):
    over = threading.Event()
    def work():
        while not over.is_set():
            assert rpc.client("t").call("who") == "parent"
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()

    def child():
        rpc.server("t", [Service("child")]).start()
        assert rpc.client("t").call("who") == "child"

    for _ in range(10):
        fork(child)
    over.set()
    for thread in threads: thread.join()
""",
    "multiprocessing": """
rpc = rpclib.sync.connect("fake://", timeout=5)

def child(queue):
    with rpc.server("t", [Service("child")]):
        queue.put(rpc.client("t").call("who"))

if __name__ == "__main__":
    rpc.open()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert queue.get(timeout=10) == "child"
    process.join(10)
    assert process.exitcode == 0
    told(rpclib.NoServer, lambda: rpc.client("t", route_grace=0).call("who"))
    rpc.close()
""",
    "an async transport says so": """
async def main():
    async with rpclib.connect("fake://", timeout=5) as rpc, rpc.server("t", [Service("parent")]):
        client = rpc.client("t")

        def child():
            async def use():
                for send in (client.call("who"), client.cast("who"), rpc.server("u", [Service("x")]).start()):
                    try:
                        await send
                    except rpclib.ForkError as error:
                        assert "call connect() again" in str(error)
                    else:
                        raise AssertionError("no ForkError")
                async with rpclib.connect("fake://", timeout=5) as own, own.server("t", [Service("child")]):
                    assert await own.client("t").call("who") == "child"
            asyncio.events._set_running_loop(None)
            asyncio.run(use())

        fork(child)
        assert await client.call("who") == "parent"

asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_forking(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + PROGRAMS[name]], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
