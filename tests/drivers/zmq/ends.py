"""Wires as tests use them: what came in, and a loop by hand."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from time import monotonic

from rpclib_zmq.protocol.wire import Wire
from rpclib_zmq.protocol.zmtp import Frame, handshake

LONGEST = 16 * 1024 * 1024
SECONDS = 20.0
"""Longer than anything here takes."""

Pair = tuple[socket.socket, socket.socket]


class End:
    """A wire, what came in, and whether it wants to hear that it can write."""

    def __init__(self, connected: socket.socket, role: bytes = b"DEALER") -> None:
        self.messages: list[list[Frame]] = []
        self.wanted: list[bool] = []
        self.wire = Wire(connected, role, self.messages.append, self.wanted.append, LONGEST)

    def turn(self, seconds: float) -> None:
        """Do once what a loop does."""
        wire = self.wire
        writers = [wire] if self.wanted[-1:] == [True] else []
        readable, writable, _ = select.select([wire], writers, [], seconds)
        if writable and not wire.write():
            self.wanted.append(False)
        if readable:
            wire.read()

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = monotonic() + SECONDS
        while not condition():
            assert monotonic() < deadline, what
            self.turn(0.01)

    def read_all(self) -> None:
        """Read until there is nothing, or the end."""
        while self.wire.read():
            pass

    def expect(self, messages: list[list[bytes]]) -> None:
        self.until(lambda: len(self.messages) >= len(messages), "all messages")
        assert self.messages == messages


def two(pair: Pair) -> tuple[End, End]:
    """Both ends, which have greeted each other."""
    dealer, router = End(pair[0]), End(pair[1], b"ROUTER")
    for end in (dealer, router):
        assert end.wire.read()
    return dealer, router


def one(pair: Pair) -> End:
    """An end that has been greeted by hand."""
    end = End(pair[0])
    pair[1].sendall(handshake(b"ROUTER"))
    assert end.wire.read()
    return end
