"""``rpclib config``."""

from __future__ import annotations

import click

from rpclib.cli import output
from rpclib.cli.command import Command, connects, prints


@click.group()
def config() -> None:
    """Show, check and write the configuration."""


@config.command(cls=Command)
@connects
@prints
def show(url: str | None, exchange: str | None, as_json: bool) -> None:
    """Print every setting with its value and where that comes from. Passwords are not shown."""
    from rpclib.config.settings import describe, resolve

    rows = describe(resolve(url, exchange=exchange))
    if as_json:
        output.print_json([{"name": name, "value": value, "source": source} for name, value, source in rows])
        return
    out = output.console()
    texts = [(name, "" if value is None else str(value), source) for name, value, source in rows]
    first, second = (max(len(row[column]) for row in texts) for column in (0, 1))
    for name, value, source in texts:
        out.print(f"{name:{first}}", style="bold", end="  ")
        out.print(f"{value:{second}}", end="  ", soft_wrap=True)
        out.print(source, style="dim" if source == "default" else "green", soft_wrap=True)


@config.command(cls=Command)
@connects
@prints
def check(url: str | None, exchange: str | None, as_json: bool) -> None:
    """Say whether the configuration is complete and correct, the tables of other drivers included."""
    from rpclib.config import drivers
    from rpclib.config.settings import resolve
    from rpclib.config.sources import read_file

    resolved = resolve(url, exchange=exchange)
    others = read_file().values.keys() & set(drivers.schemes()) - {resolved.url.scheme}
    for scheme in sorted(others):
        resolve(f"{scheme}://")
    if as_json:
        output.print_json({"url": str(resolved.url), "tables": sorted({resolved.url.scheme, *others})})
    else:
        output.console().print(f"the configuration is complete: {resolved.url}", soft_wrap=True)


@config.command(cls=Command)
def sample() -> None:
    """Print an rpclib.toml with everything that can be set, its default and its meaning.

    rpclib config sample > rpclib.toml
    """
    from rpclib.config import drivers
    from rpclib.config.settings import sample as text

    rows = drivers.installed()
    click.echo(text([row.scheme for row in rows if row.driver]), nl=False)
    for row in rows:
        if row.driver is None:
            click.echo(f"\n# [{row.scheme}] {row.problem}")
