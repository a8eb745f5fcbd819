"""``rpclib drivers``, and what a driver promises in words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from rpclib.cli import output
from rpclib.cli.command import Command, prints
from rpclib.driver import Capability

if TYPE_CHECKING:
    from rpclib.config.drivers import InstalledDriver

WORDS = {
    Capability.STORES: (
        "requests wait while no server listens",
        "requests sent while no server listens are lost",
    ),
    Capability.REDELIVERS: (
        "requests that a lost server had not started go to another",
        "requests on their way to a lost server are lost",
    ),
    Capability.UNROUTABLE: (
        "a call that nobody serves fails within about a second",
        "a call that nobody serves ends by its timeout",
    ),
    Capability.PRESENCE: (
        "a call whose servers have gone fails within seconds",
        "a call whose servers have gone ends by its timeout",
    ),
    Capability.PEER_LOSS: (
        "a call whose server dies fails at once",
        "a call whose server dies ends by its timeout",
    ),
    Capability.PEER_GONE: (
        "a server can tell that its caller has gone",
        "a server cannot tell that its caller has gone",
    ),
    Capability.EXPIRES: (
        "expired requests are not delivered",
        "expired requests are delivered, but not started",
    ),
    Capability.AGES: (
        "all the time that a request waits counts for its deadline",
        "the time that a request waits in the backend does not count for its deadline",
    ),
    Capability.ORDERED: (
        "requests from one client arrive in order",
        "requests may arrive in any order",
    ),
    Capability.EXCHANGES: (
        "exchanges keep equal topics apart",
        "equal topics of different exchanges are one",
    ),
    Capability.ALL_TYPES: (
        "values of every documented type travel",
        "values of some documented types do not travel",
    ),
    Capability.CROSS_PROCESS: (
        "reached from other processes",
        "reached from the same process only",
    ),
    Capability.CROSS_HOST: (
        "reached from other machines",
        "reached from the same machine only",
    ),
}
"""What users get with a capability, and what without."""


def promises(capabilities: Iterable[Capability]) -> Iterator[tuple[bool, str]]:
    """What a driver with these capabilities does (True) and does not, in words."""
    having = set(capabilities)
    for capability in Capability:
        yes, no = WORDS[capability]
        yield (True, yes) if capability in having else (False, no)


@click.command(cls=Command)
@prints
def drivers(as_json: bool) -> None:
    """List the installed drivers, what each promises, and what is wrong with those that cannot be used."""
    from rpclib.config.drivers import installed

    rows = installed()
    if as_json:
        output.print_json([_row(row) for row in rows])
        return
    out = output.console()
    for (owner, reference, problem), same in itertools.groupby(rows, _claim):
        group = list(same)
        out.print("  ".join(f"{row.scheme}://" for row in group), style="bold", end="  ")
        out.print(f"{owner}, {reference}", style="dim")
        driver = group[0].driver
        if driver is None:
            out.print(f"  ! {output.printable(problem or '')}", style="red")
            continue
        for kept, words in promises(driver.capabilities):
            out.print(f"  {'+' if kept else '-'} {words}", style="green" if kept else "yellow")
    if not rows:
        out.print("no drivers are installed")


def _claim(row: InstalledDriver) -> tuple[str, str, str | None]:
    """What the schemes of one driver have in common."""
    return f"{row.distribution} {row.version}", row.reference, row.problem


def _row(row: InstalledDriver) -> dict[str, object]:
    return {
        "scheme": row.scheme,
        "distribution": row.distribution,
        "version": row.version,
        "reference": row.reference,
        "capabilities": sorted(one.value for one in row.driver.capabilities) if row.driver else None,
        "options": list(row.driver.options.model_fields) if row.driver else None,
        "problem": row.problem,
    }
