"""Sockets of pyzmq that end with their test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq


@contextmanager
def context(*, linger: int) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context whose sockets, once closed, wait at most so many milliseconds for the other end to take what they
    were given. By themselves they wait for ever, and the end of their context for them."""
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made.setsockopt(zmq.LINGER, linger)
    try:
        yield made
    finally:
        made.destroy()
