"""Sending: what leaves together, and when."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rpclib.driver import Gate

FLUSH_AT = 64 * 1024
"""Bytes gathered within a turn that are written at once."""
HELD_AT_MOST = 10_000
HELD_BYTES_AT_MOST = 16 * 1024 * 1024
"""Messages and bytes held while paused with which the gate shuts."""


class SendBuffer:
    """Gathers what is sent within a turn of the loop and has it written together: a system call, or a request,
    costs more than a message.

    ``write(pieces)`` gets them at the end of the turn; earlier when there are ``flush_at`` bytes or ``most``
    pieces, so that others begin with them while this one goes on; and at once where messages come one by one: for
    the first of a turn when the turn before had no more pieces than ``one_message``.

    While `paused` nothing is written, and ``gate`` shuts when too much is held.
    """

    def __init__(
        self,
        write: Callable[[list[bytes]], object],
        *,
        one_message: int,
        most: int = sys.maxsize,
        flush_at: int = FLUSH_AT,
        gate: Gate | None = None,
    ) -> None:
        self._write = write
        self._one_message = one_message
        self._most = most
        self._flush_at = flush_at
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._turning = False
        self._quiet = True
        self._paused = False

    def add(self, pieces: Iterable[bytes], size: int) -> None:
        """Send one message, of ``size`` bytes."""
        self._pieces += pieces
        self._size += size
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)
            if self._quiet:
                self.flush()
        elif self._size >= self._flush_at or len(self._pieces) >= self._most:
            self.flush()

    def add_later(self, piece: bytes) -> None:
        """Send what nobody waits for, such as an acknowledgement: at the end of the turn, or with what goes
        before."""
        self._pieces.append(piece)
        self._size += len(piece)
        self.turn_next()
        if self._size >= self._flush_at:
            self.flush()

    def turn_next(self) -> None:
        """Somebody is about to send in the next turn: have that leave at its end, and not a turn later. For when
        ``arrived`` was called: the tasks that it woke run in the next turn."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def flush(self) -> None:
        """Have everything written now, unless `paused`."""
        if self._paused:
            if self._gate is not None and self._is_full(1):
                self._gate.full(True)
        elif self._pieces:
            pieces, self._pieces = self._pieces, []
            self._size = 0
            self._write(pieces)

    def paused(self, on: bool) -> None:
        """The backend takes nothing at the moment, or takes it again: then what was held is written."""
        self._paused = on
        if not on:
            self.flush()
            if self._gate is not None and not self._is_full(2):
                self._gate.full(False)

    def clear(self) -> None:
        """Forget what was not written."""
        self._pieces.clear()
        self._size = 0

    def _turn(self) -> None:
        self._turning = False
        self._quiet = len(self._pieces) <= self._one_message
        self.flush()

    def _is_full(self, part: int) -> bool:
        messages = len(self._pieces) / max(self._one_message, 1)
        return messages >= HELD_AT_MOST / part or self._size >= HELD_BYTES_AT_MOST / part
