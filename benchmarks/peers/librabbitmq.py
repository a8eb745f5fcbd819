"""A C program on librabbitmq, client and server: what the broker and the machine allow. See librabbitmq.c.

It is compiled when it is first needed, with Debian's librabbitmq-dev.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.place import Place

SOURCE = Path(__file__).with_suffix(".c")


class NotCompiled(Exception):
    """Why there is no C program; a line."""


def missing() -> str | None:
    """Why it cannot take part; None when it can."""
    try:
        _program()
    except NotCompiled as error:
        return str(error)
    return None


def command(place: Place) -> list[str]:
    url = urlsplit(place.url)
    where = [url.hostname or "", str(url.port), url.username or "", url.password or ""]
    numbers = [str(number) for number in (place.servers, place.index, place.topics)]
    return [_program(), place.role, *where, place.run, str(place.tally().path), *numbers]


@functools.cache
def _program() -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotCompiled("there is no C compiler: apt-get install gcc libc6-dev")
    folder = tempfile.mkdtemp(prefix="rpclib-bench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = f"{folder}/librabbitmq"
    flags = ["-O2", "-Wall", "-std=c11", "-pthread"]
    done = subprocess.run(
        [compiler, *flags, "-o", program, str(SOURCE), "-lrabbitmq"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        first = next(iter(done.stderr.splitlines()), "")
        raise NotCompiled(f"librabbitmq.c does not compile: {first} (apt-get install librabbitmq-dev)")
    return program
