"""The command line as a whole."""

from __future__ import annotations

import click

from rpclib.cli.config import config
from rpclib.cli.demo.demo import demo
from rpclib.cli.drivers import drivers
from rpclib.cli.queues import queues
from rpclib.cli.run.run import run
from rpclib.cli.send import call, cast, fanout


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rpclib-messaging", prog_name="rpclib")
def app() -> None:
    """Call Python services over any message backend.

    Try it: rpclib demo

    Exit codes: 0 ok, 1 remote error, 2 usage or configuration, 3 timeout, 4 no server, 5 connection.
    """


for command in (run, call, cast, fanout, queues, drivers, config, demo):
    app.add_command(command)
