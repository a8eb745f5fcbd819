"""Serving the endpoints that ``rpclib run`` names, in this process."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import NoReturn

import rpclib
from rpclib import tasks
from rpclib.cli import output
from rpclib.cli.run.banner import banner
from rpclib.cli.run.loading import endpoint
from rpclib.cli.run.reload import Watch
from rpclib.errors import ConfigError, RpcError
from rpclib.serving import signals

log = logging.getLogger("rpclib")

CHANGED = 75
"""Exit code of a process whose source files changed: start it again."""


@dataclass(frozen=True)
class Job:
    """What to serve where. Travels to child processes."""

    endpoints: tuple[str, ...]
    topic: str
    server: str | None = None
    workers: int | None = None
    url: str | None = field(default=None, repr=False)
    exchange: str | None = None


def work(job: Job, *, number: int = 1, greet: bool = True, reload: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    ``number`` tells processes apart; ``greet`` shows the banner. With ``reload`` it returns CHANGED as soon as
    a source file was changed.
    """
    watch = Watch() if reload else None
    try:
        instances = [endpoint(name) for name in job.endpoints]
        if watch is not None:
            watch.begin()
        logging.basicConfig(level=logging.INFO, format=_log_format(number))
        return asyncio.run(_serve(job, instances, greet, watch))
    except RpcError as error:
        code = output.fail(error, as_json=False, traceback=False)
        if watch is None or not isinstance(error, ConfigError) or not watch.add_from(error):
            return code
        output.console(stderr=True).print("waiting for a change", style="dim")
        return asyncio.run(_wait(watch))
    except KeyboardInterrupt:
        return 130


def leave(code: int) -> NoReturn:
    """Exit, and do not wait for endpoints that still block in threads."""
    left = [
        thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
    ]
    if left:
        log.warning("leaving %d threads behind that did not end", len(left))
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


async def _serve(job: Job, instances: list[object], greet: bool, watch: Watch | None) -> int:
    target = rpclib.Target(job.topic, server=job.server)
    async with rpclib.connect(job.url, exchange=job.exchange) as rpc:
        server = rpc.server(target, instances, workers=job.workers)
        await server.start()
        signalled = asyncio.Event()
        with signals.on_loop(signalled.set, server.stop_now):
            _end_with_parent()
            if greet:
                banner(rpc, server)
            else:
                log.info("serving %s", server.target)
            code = await _until_over(signalled, watch)
            await server.stop()
        log.info("stopped serving %s", server.target)
        return code


async def _wait(watch: Watch) -> int:
    _end_with_parent()
    await watch.changed()
    return CHANGED


async def _until_over(signalled: asyncio.Event, watch: Watch | None) -> int:
    """Return when there was a signal, or a source file changed: the exit code."""
    if watch is None:
        await signalled.wait()
        return 0
    changed = asyncio.create_task(watch.changed())
    told = asyncio.create_task(signalled.wait())
    try:
        await asyncio.wait((told, changed), return_when=asyncio.FIRST_COMPLETED)
        if not changed.done():
            return 0
        log.info("%s changed: starting again", changed.result())
        return CHANGED
    finally:
        await tasks.ended(told, changed)


def _end_with_parent() -> None:
    """A child process ends gracefully when its parent is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    loop = asyncio.get_running_loop()

    def orphaned(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(parent.sentinel, orphaned, parent.sentinel)


def _log_format(number: int) -> str:
    process = "" if multiprocessing.parent_process() is None else f"[{number}] "
    return f"%(asctime)s {process}%(levelname)s %(name)s: %(message)s"
