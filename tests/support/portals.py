"""Things to run on a portal's loop, and to hold it up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from rpclib.sync.portal import Job, Portal

LONG = 10.0
"""Seconds after which something counts as hanging."""


async def echo(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def finished(job: Job[Any]) -> Any:
    assert job.done.acquire(timeout=LONG), "the job never ended"
    return job.outcome()


class Held:
    """The loop is busy until `release`."""

    def __init__(self, portal: Portal) -> None:
        self._over = threading.Event()
        busy = threading.Event()

        async def hold() -> None:
            busy.set()
            self._over.wait(LONG)

        self._job = portal.submit(hold())
        assert busy.wait(LONG)

    def release(self) -> None:
        self._over.set()
        finished(self._job)
