"""What all commands have in common: how they fail, and the options that say where to connect."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from rpclib.cli import output
from rpclib.errors import RpcError

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose RpcErrors become readable lines and exit codes, and Ctrl-C the code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)
        except RpcError as error:
            as_json, traceback = (bool(ctx.params.get(name)) for name in ("as_json", "traceback"))
            ctx.exit(output.fail(error, as_json=as_json, traceback=traceback))


def connects(function: F) -> F:
    """Add ``--url`` and ``--exchange``, which have precedence over the configuration."""
    function = click.option("--exchange", metavar="NAME", help="The area within which topics are distinct.")(
        function
    )
    return click.option(
        "-u", "--url", metavar="URL", help="The backend. Default: RPCLIB_URL, then the url in rpclib.toml."
    )(function)


def prints(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value, also for an error.")(
        function
    )


def quiet() -> None:
    """Keep log lines away from a command that says itself how it went."""
    logging.basicConfig(handlers=[logging.NullHandler()])
