"""The blocking API in whole programs: Ctrl-C, and an end without close."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


def program(text: str, *, interrupt_at: str = "", timeout: float = 20) -> tuple[int, str, str]:
    """Run a program; send it SIGINT once it has written a line."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if interrupt_at:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == interrupt_at
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, err


SERVICE = """
import asyncio, rpclib, sys, threading
begun = threading.Event()
class Service:
    @rpclib.expose
    async def hang(self):
        print("running", flush=True)
        begun.set()
        await asyncio.Event().wait()
    @rpclib.expose
    def plain(self):
        return "plain"
"""


def test_ctrl_c_ends_a_call() -> None:
    text = SERVICE + (
        "with rpclib.sync.connect('fake://', grace=0) as rpc, rpc.server('t', [Service()]):\n"
        "    try:\n"
        "        rpc.client('t', timeout=1000).call('hang')\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
        "    print(rpc.client('t').call('plain'), len(rpc._transport._calls.table))\n"
    )
    code, out, err = program(text, interrupt_at="running")
    assert (code, out) == (0, "interrupted\nplain 0\n")
    assert "Traceback" not in err


@pytest.mark.parametrize("server", [True, False])
def test_an_interpreter_that_ends_without_close_does_not_hang(server: bool) -> None:
    text = SERVICE + (
        "rpc = rpclib.sync.connect('fake://')\n"
        "rpc.open()\n"
        f"if {server}:\n"
        "    rpc.server('t', [Service()]).start()\n"
        "    print(rpc.client('t').call('plain'))\n"
        "    threading.Thread(target=lambda: rpc.client('t', timeout=1000).call('hang'), daemon=True).start()\n"
        "    assert begun.wait(10)\n"
        "print('end')\n"
    )
    code, out, err = program(text)
    assert (code, err) == (0, "")
    assert out.splitlines() == (["plain", "running", "end"] if server else ["end"])
