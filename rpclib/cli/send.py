"""``rpclib call``, ``cast`` and ``fanout``."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

import rpclib
from rpclib.cli import output
from rpclib.cli.command import Command, connects, prints, quiet
from rpclib.wire import serializer

F = TypeVar("F", bound=Callable[..., Any])

_PAIR = re.compile(r"([^\W\d]\w*)(:?=)(.*)", re.DOTALL)


def pairs(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """``key=text`` and ``key:=json``, by key."""
    found: dict[str, Any] = {}
    for value in values:
        match = _PAIR.fullmatch(value)
        if match is None:
            raise click.BadParameter(f"{value!r} is neither key=text nor key:=json", ctx, param)
        key, sign, text = match.groups()
        if key in found:
            raise click.BadParameter(f"{key} is given twice", ctx, param)
        try:
            found[key] = text if sign == "=" else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"{key} is not JSON: {error}", ctx, param) from None
    try:
        serializer.check(found)
        serializer.pack(found)
    except rpclib.SerializationError as error:
        raise click.BadParameter(str(error), ctx, param) from None
    return found


def sends(function: F) -> F:
    """Add the arguments and options of a command that sends a request."""
    for add in reversed(
        (
            click.argument("topic", metavar="TOPIC[.SERVER]"),
            click.argument("method"),
            click.argument("arguments", nargs=-1, callback=pairs, metavar="[KEY=TEXT | KEY:=JSON]..."),
            connects,
            click.option("--timeout", type=float, metavar="SECONDS", help="How long it may take. Default: 60."),
            click.option("--version", metavar="MAJOR.MINOR", help="What the endpoint must implement."),
            click.option("--namespace", metavar="NAME", help="Which of the server's endpoints."),
            click.option(
                "--context",
                "context",
                multiple=True,
                callback=pairs,
                metavar="KEY=TEXT",
                help="Metadata; repeatable.",
            ),
            prints,
        )
    ):
        function = add(function)
    return function


@click.command(cls=Command)
@sends
@click.option("--traceback", is_flag=True, help="Show the server's traceback when the method raised.")
def call(**given: Any) -> None:
    """Run METHOD on one server of TOPIC and print its result.

    rpclib call compute.phantom boot instance_id=i-1 volumes:='["v1", "v2"]'
    """
    given.pop("traceback")
    as_json = given.pop("as_json")
    result = asyncio.run(_send("call", **given))
    if as_json:
        output.print_json({"result": result})
    else:
        output.print_result(result)


@click.command(cls=Command)
@sends
def cast(**given: Any) -> None:
    """Ask one server of TOPIC to run METHOD, and do not wait for it.

    Fails when the backend says at once that nobody serves TOPIC.
    """
    _one_way("cast", **given)


@click.command(cls=Command)
@sends
def fanout(**given: Any) -> None:
    """Ask every server of TOPIC to run METHOD, and do not wait for them."""
    if "." in given["topic"]:
        raise click.UsageError("a fanout goes to all servers of a topic: name the topic alone")
    _one_way("fanout", **given)


def _one_way(kind: str, as_json: bool, **given: Any) -> None:
    asyncio.run(_send(kind, **given))
    if as_json:
        output.print_json({"result": None})


async def _send(
    kind: str,
    topic: str,
    method: str,
    arguments: dict[str, Any],
    url: str | None,
    exchange: str | None,
    timeout: float | None,
    context: dict[str, Any],
    **target: str | None,
) -> Any:
    quiet()
    unreached: list[rpclib.Undeliverable] = []
    name, _, server = topic.partition(".")
    to = rpclib.Target(name, server=server or None, **target)
    async with rpclib.connect(url, exchange=exchange, timeout=timeout, on_undeliverable=unreached.append) as rpc:
        client = rpc.client(to, context=context)
        result = await getattr(client, kind)(method, **arguments)
    if unreached:
        raise rpclib.NoServer(f"nobody serves {topic}: {unreached[0].reason}", maybe_executed=False)
    return result
