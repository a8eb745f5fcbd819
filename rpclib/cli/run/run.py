"""``rpclib run``."""

from __future__ import annotations

import asyncio
import logging

import click

from rpclib.cli.command import Command, connects
from rpclib.driver import Capability
from rpclib.errors import ConfigError


@click.command(cls=Command)
@click.argument("endpoints", nargs=-1, required=True, metavar="MODULE:CLASS...")
@connects
@click.option("--topic", required=True, metavar="TOPIC", help="What clients call.")
@click.option("--server", metavar="NAME", help="The name of this server. Default: the host name.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Requests at a time, per process.")
@click.option("--processes", type=click.IntRange(min=1), default=1, metavar="N", help="Processes. Default: 1.")
@click.option("--reload", is_flag=True, help="Start again whenever a source file changes.")
def run(
    endpoints: tuple[str, ...],
    url: str | None,
    exchange: str | None,
    topic: str,
    server: str | None,
    workers: int | None,
    processes: int,
    reload: bool,
) -> None:
    """Serve the exposed methods of classes until SIGTERM or Ctrl-C.

    Modules are searched in the working directory first. A class is called without arguments; a function that
    returns an instance, or an instance, will do as well. A second signal stops without grace.
    """
    from rpclib.cli.run.processes import Processes
    from rpclib.cli.run.serving import Job, leave, work

    job = Job(endpoints, topic, server, workers, url, exchange)
    if processes > 1:
        _needs_processes(url, exchange)
    if processes == 1 and not reload:
        leave(work(job))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    leave(asyncio.run(Processes(job, processes, reload=reload).run()))


def _needs_processes(url: str | None, exchange: str | None) -> None:
    from rpclib.config.settings import resolve

    resolved = resolve(url, exchange=exchange)
    if Capability.CROSS_PROCESS not in resolved.driver.capabilities:
        scheme = resolved.url.scheme
        raise ConfigError(
            f"{scheme}:// does not reach other processes: leave out --processes, or use another backend"
        )
