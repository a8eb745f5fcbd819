"""The ``rpclib`` command; needs the ``cli`` extra. See docs/reference/cli.md."""

from __future__ import annotations

import importlib.util
import sys

NEEDS = ("click", "rich")


def main() -> None:
    """Run the command line of this process and exit with its code."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"error: the rpclib command needs {' and '.join(missing)}: {_pip_command(missing[0])}\n")
        sys.exit(2)
    from rpclib.cli.app import app

    app(prog_name="rpclib")


def _pip_command(module: str) -> str:
    from importlib.metadata import entry_points

    from rpclib.config import drivers

    for script in entry_points(group="console_scripts", name="rpclib"):
        if script.value.startswith("rpclib.cli"):
            return drivers.pip_command(script.dist, "cli", module)
    return drivers.pip_command(None, "cli", module)
