"""Waiting for tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def ended(*futures: asyncio.Future[Any]) -> None:
    """Cancel each of ``futures`` and return when all are done. Their results and errors are dropped."""
    for future in futures:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)


async def first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Return when one of ``coroutines`` has ended, with the others cancelled."""
    tasks = [asyncio.ensure_future(item) for item in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(*tasks)
