"""``rpclib demo``: services that call each other, on any backend."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

import rpclib
from rpclib.cli import output
from rpclib.cli.command import Command, quiet
from rpclib.cli.demo.services import HOSTS

if TYPE_CHECKING:
    from rich.console import Console

_PATIENCE = 5.0
"""Seconds to wait until the effect of a cast shows."""


@dataclass(frozen=True)
class Step:
    """One thing to show, and how it must end."""

    title: str
    topic: str
    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "call"
    server: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    effects: int = 0
    """How many servers show that they did something."""
    raises: tuple[type[rpclib.RpcError], ...] = ()

    def __str__(self) -> str:
        to = f".to({json.dumps(self.server)})" if self.server else ""
        prepare = f".prepare({_keywords(self.options)})" if self.options else ""
        arguments = f", {_keywords(self.arguments)}" if self.arguments else ""
        return f'await {self.topic}{to}{prepare}.{self.kind}("{self.method}"{arguments})'

    async def run(self, rpc: rpclib.Transport) -> Any:
        client = rpc.client(self.topic, **self.options)
        if self.server:
            client = client.to(self.server)
        return await getattr(client, self.kind)(self.method, **self.arguments)


STEPS = (
    Step("A call goes to whichever server is free", "compute", "boot", {"instance_id": "i-1"}),
    Step(
        "A service calls others: scheduler, then compute, then network",
        "scheduler",
        "place",
        {"instance_id": "i-2"},
    ),
    Step("A call to one server", "compute", "list_instances", server="alpha"),
    Step("A cast does not wait; one server does it", "compute", "refresh", kind="cast", effects=1),
    Step("A fanout reaches every server", "compute", "refresh", kind="fanout", effects=len(HOSTS)),
    Step(
        "What an endpoint raises, the caller gets",
        "compute",
        "destroy",
        {"instance_id": "i-9"},
        raises=(rpclib.RemoteError,),
    ),
    Step("A method that does not exist", "compute", "bot", {"instance_id": "i-3"}, raises=(rpclib.NoSuchMethod,)),
    Step(
        "A call ends by its deadline, whatever the server does",
        "compute",
        "migrate",
        {"instance_id": "i-1"},
        options={"timeout": 0.2},
        raises=(rpclib.CallTimeout,),
    ),
    Step(
        "A call that nobody serves",
        "billing",
        "charge",
        {"cents": 5},
        options={"timeout": 1.5, "route_grace": 0.5},
        raises=(rpclib.NoServer, rpclib.CallTimeout),
    ),
)


@click.command(cls=Command)
@click.option(
    "-u",
    "--url",
    metavar="URL",
    help="The backend. Default: zmq://, each service in a process of its own; without pyzmq fake://, in memory.",
)
@click.option("--exchange", default="rpclib-demo", metavar="NAME", help="Default: rpclib-demo.")
def demo(url: str | None, exchange: str) -> None:
    """Watch three services call each other. Needs no broker."""
    quiet()
    if not asyncio.run(_demo(url or _default(), exchange)):
        raise click.exceptions.Exit(1)


def _default() -> str:
    from rpclib.config import drivers

    try:
        drivers.load("zmq")
    except rpclib.ConfigError:
        return "fake://demo"
    return "zmq://"


async def _demo(url: str, exchange: str) -> bool:
    from rpclib.cli.demo.processes import here, processes

    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    out = output.console()

    def say(who: str, what: str) -> None:
        heard.put_nowait((who, what))

    async with rpclib.connect(url, exchange=exchange, timeout=10.0, grace=2.0) as rpc:
        apart = rpclib.Capability.CROSS_PROCESS in rpc.capabilities
        async with processes(url, exchange, say) if apart else here(rpc, say):
            where = "each in a process of its own" if apart else "all in this process"
            served = f"compute (servers {' and '.join(HOSTS)}), network and scheduler"
            out.print(f"{rpc.url} carries {served}, {where}", soft_wrap=True)
            right = [await _show(out, rpc, number, step, heard) for number, step in enumerate(STEPS, 1)]
    out.print("\nThe same program runs on any backend: rpclib drivers; rpclib demo --url URL", style="dim")
    return all(right)


async def _show(
    out: Console, rpc: rpclib.Transport, number: int, step: Step, heard: asyncio.Queue[tuple[str, str]]
) -> bool:
    out.print(f"\n{number}. {step.title}", style="bold")
    out.print(f"   > {step}", style="cyan", soft_wrap=True)
    began = perf_counter()
    error: rpclib.RpcError | None = None
    result = None
    try:
        result = await step.run(rpc)
    except rpclib.RpcError as raised:
        error = raised
    took = f"{(perf_counter() - began) * 1000:.1f} ms"
    as_told = isinstance(error, step.raises) if step.raises else error is None
    if error is not None:
        text = output.printable(f"{type(error).__name__}: {error}")
        out.print(f"   < {text}", style="yellow" if as_told else "red", end="  ", soft_wrap=True)
    else:
        text = json.dumps(output.plain(result)) if step.kind == "call" else "sent"
        out.print(f"   < {text}", style="green", end="  ", soft_wrap=True)
    out.print(took, style="dim")
    return as_told and await _effects(out, step.effects, heard)


async def _effects(out: Console, count: int, heard: asyncio.Queue[tuple[str, str]]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE):
            for _ in range(count):
                who, what = await heard.get()
                out.print(f"     {who} {what}", style="magenta")
    except TimeoutError:
        out.print(f"     nothing more happened within {_PATIENCE:g} s", style="red")
        return False
    return True


def _keywords(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
