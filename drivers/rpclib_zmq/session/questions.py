"""Questions of a session to the receiver, and the futures of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rpclib.errors import ConnectionLost, TransportError


class Questions:
    """Pending questions, by number. A late answer is ignored."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._last = 0

    def number(self) -> int:
        """A number that is unique among the questions and subscriptions of the session."""
        self._last += 1
        return self._last

    @contextmanager
    def asked(self, number: int) -> Iterator[asyncio.Future[int]]:
        """The future of the answer, pending during the block."""
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            yield answer
        finally:
            self._waiting.pop(number, None)

    def answered(self, number: int, value: int) -> None:
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_result(value)

    def refused(self, number: int, error: TransportError) -> None:
        answer = self._waiting.get(number)
        if answer is not None and not answer.done():
            answer.set_exception(error)

    def fail(self, reason: str) -> None:
        """Fail all pending questions."""
        for number in list(self._waiting):
            self.refused(number, ConnectionLost(reason))
