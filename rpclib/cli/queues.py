"""``rpclib queues``: what waits on the backend, and clearing it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

import click

from rpclib.cli import output
from rpclib.cli.command import Command, connects, prints, quiet
from rpclib.driver import Admin, QueueInfo
from rpclib.errors import ConfigError, NoServer
from rpclib.operations import admin

if TYPE_CHECKING:
    from rpclib.config.settings import Resolved

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Split = tuple[list[QueueInfo], list[QueueInfo]]

DONE = {"purge": "purged", "delete": "deleted"}


class Group(Command, click.Group):
    """A command that has commands of its own."""


@click.group(cls=Group, invoke_without_command=True)
@connects
@prints
@click.pass_context
def queues(ctx: click.Context, url: str | None, exchange: str | None, as_json: bool) -> None:
    """List the queues of the exchange: the messages that wait in each, and its consumers."""
    if ctx.invoked_subcommand is not None:
        given = {"url": url, "exchange": exchange, "as_json": as_json}
        ctx.default_map = {"purge": given, "delete": given}
        return
    resolved = admin.resolve(url, exchange)
    found = _ask(resolved, lambda session: session.queues(resolved.settings.exchange))
    if as_json:
        output.print_json({"queues": [_row(queue) for queue in found]})
    elif found:
        _print_table(found)
    else:
        _say(f'no queues in exchange "{resolved.settings.exchange}" on {resolved.url}')


def clears(function: F) -> F:
    """Add the arguments and options of a command that changes queues."""
    for add in reversed(
        (
            click.argument("pattern"),
            connects,
            click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
            click.option("--yes", is_flag=True, help="Do not ask."),
            prints,
        )
    ):
        function = add(function)
    return function


@queues.command(cls=Command)
@clears
def purge(**given: Any) -> None:
    """Drop the messages that wait in the queues that match PATTERN.

    PATTERN is a name with * ? [...], in quotes. What a server has received already is not affected.
    """
    _clear("purge", **given)


@queues.command(cls=Command)
@clears
def delete(**given: Any) -> None:
    """Delete the queues that match PATTERN, with the messages that wait in them.

    PATTERN is a name with * ? [...], in quotes: '*.phantom' are those of a host. Queues that have consumers are
    kept, and the exit code is 1 then.
    """
    _clear("delete", **given)


def _clear(
    verb: str, pattern: str, url: str | None, exchange: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    asks = not (yes or dry_run)
    if asks and (as_json or not sys.stdin.isatty()):
        raise ConfigError(f"nothing was {DONE[verb]}: say --yes to {verb}, or --dry-run to see what that would do")
    resolved = admin.resolve(url, exchange)
    area = resolved.settings.exchange
    matching = _ask(resolved, lambda session: _match(session, area, pattern))
    chosen, kept = _split(verb, matching)
    if (asks or dry_run) and not as_json:
        _print_table(matching)
    if asks and chosen:
        _confirm(f"{verb} {_total(chosen)}?")
    if chosen and not dry_run:
        # In a session of its own: none lives as long as a question may take.
        names = {queue.name for queue in chosen}
        chosen, late = _ask(resolved, lambda session: _carry_out(session, verb, area, names))
        kept += late
    if as_json:
        done = [{"name": queue.name, "messages": queue.messages} for queue in chosen]
        output.print_json({DONE[verb]: done, "kept": [_row(queue) for queue in kept], "dry_run": dry_run})
    else:
        _say(f"{f'would {verb}' if dry_run else DONE[verb]} {_total(chosen)}")
        for queue in kept:
            _say(f"kept {queue.name}, which has {_count(queue.consumers, 'consumer')}: stop its servers first")
    if kept:
        click.get_current_context().exit(1)


async def _match(session: Admin, exchange: str, pattern: str) -> list[QueueInfo]:
    """The queues that match. Raises NoServer when there are none."""
    found = await session.queues(exchange)
    matching = [queue for queue in found if fnmatchcase(queue.name, pattern)]
    if not matching:
        raise NoServer(f'none of the {_count(len(found), "queue")} of exchange "{exchange}" matches "{pattern}"')
    return matching


def _split(verb: str, found: Iterable[QueueInfo]) -> Split:
    """The queues to work on, and those to keep."""
    chosen: list[QueueInfo] = []
    kept: list[QueueInfo] = []
    for queue in found:
        (kept if verb == "delete" and queue.consumers else chosen).append(queue)
    return chosen, kept


async def _carry_out(session: Admin, verb: str, exchange: str, names: Collection[str]) -> Split:
    """Purge or delete those of ``names`` that may be, as they are now. The ``messages`` of what was done is how
    many that dropped."""
    chosen, kept = _split(verb, [queue for queue in await session.queues(exchange) if queue.name in names])
    done = []
    for queue in chosen:
        try:
            dropped = await (session.purge if verb == "purge" else session.delete)(queue.name)
        except NoServer:
            continue  # gone by itself this moment
        done.append(QueueInfo(queue.name, dropped, queue.consumers))
    return done, kept


def _ask(resolved: Resolved, work: Callable[[Admin], Awaitable[T]]) -> T:
    """Run ``work`` with one session."""

    async def ask() -> T:
        async with admin.session(resolved) as session:
            return await work(session)

    quiet()
    return asyncio.run(ask())


def _confirm(question: str) -> None:
    """Return if the answer is yes, else end the command."""
    try:
        if click.confirm(question, err=True):
            return
    except click.Abort:
        raise KeyboardInterrupt from None
    click.get_current_context().exit(1)


def _print_table(found: Iterable[QueueInfo]) -> None:
    from rich.table import Table

    table = Table("queue", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.columns[0].overflow = "fold"
    for name in ("messages", "consumers"):
        table.add_column(name, justify="right")
    for queue in found:
        table.add_row(output.printable(queue.name), str(queue.messages), str(queue.consumers))
    output.console().print(table)


def _say(text: str) -> None:
    output.console().print(output.printable(text), soft_wrap=True)


def _row(queue: QueueInfo) -> dict[str, object]:
    return {"name": queue.name, "messages": queue.messages, "consumers": queue.consumers}


def _total(found: Collection[QueueInfo]) -> str:
    messages = sum(queue.messages for queue in found)
    return f"{_count(len(found), 'queue')} with {_count(messages, 'message')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
