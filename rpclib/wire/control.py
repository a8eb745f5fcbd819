"""ALIVE: what processes tell each other beside requests and answers."""

from __future__ import annotations

from rpclib.wire import serializer
from rpclib.wire.kinds import ALIVE, VERSION


class Alive:
    """A decoded ALIVE: a message of a process to its own inbox, which proves the way there and back."""

    __slots__ = ("id",)

    def __init__(self, id: bytes) -> None:
        self.id = id


def encode_alive(id: bytes) -> bytes:
    return serializer.pack((VERSION, ALIVE, id))
