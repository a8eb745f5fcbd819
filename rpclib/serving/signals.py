"""SIGTERM and SIGINT: the first one stops gracefully, a second one at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def on_loop(first: Callable[[], object], again: Callable[[], object]) -> Iterator[None]:
    """Within the block, the first signal calls ``first`` on the running loop, and each further one ``again``.

    For the main thread. Afterwards the signals do what they do by default.
    """
    loop, handler = asyncio.get_running_loop(), _in_turn(first, again)
    for number in SIGNALS:
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def without_loop(first: Callable[[], object], again: Callable[[], object]) -> Iterator[None]:
    """The same for a main thread that runs no loop. Afterwards the signals do what they did before."""
    handler = _in_turn(first, again)
    before = {number: signal.signal(number, lambda *_: handler()) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _in_turn(first: Callable[[], object], again: Callable[[], object]) -> Callable[[], None]:
    called = False

    def handler() -> None:
        nonlocal called
        if called:
            again()
        else:
            called = True
            first()

    return handler
