"""Other machines, as the router needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rpclib_zmq.receiver.destination import Destination
from rpclib_zmq.receiver.message import Message


class Elsewhere(Protocol):
    """The other machines. `Peers` is the implementation of a receiver with a network, `Nowhere` of one without."""

    def changed(self, destination: Destination) -> None:
        """The consumers of a destination on this machine changed."""

    def announce(self, destination: Destination, then: Callable[[], object]) -> None:
        """Call ``then`` when every peer knows who serves the destination."""

    def forward(self, message: Message, now: float) -> bool:
        """Forward a reply to the machine of its inbox. False: no peer is that machine, or a peer sent the reply."""


class Nowhere:
    """No other machine."""

    def changed(self, destination: Destination) -> None:
        pass

    def announce(self, destination: Destination, then: Callable[[], object]) -> None:
        then()

    def forward(self, message: Message, now: float) -> bool:
        return False
