"""What wakes the receiver: nothing is missed, and nothing starves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from time import monotonic

import pytest
import zmq

from rpclib_zmq.receiver.sources import Sources

Pair = tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]


@pytest.fixture
def pair() -> Iterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    here, there = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    here.bind("inproc://pair")
    there.connect("inproc://pair")
    try:
        yield here, there
    finally:
        context.destroy(linger=0)


@pytest.fixture
def sources() -> Iterator[Sources]:
    made = Sources()
    yield made
    made.close()


def test_a_file_is_heard_while_a_socket_never_rests(pair: Pair, sources: Sources) -> None:
    here, there = pair
    called: list[str] = []
    read, write = os.pipe()
    sources.add(here, lambda: called.append("socket"))  # which reads nothing
    sources.add(read, lambda: called.append("file"))
    there.send(b"x")
    while not sources.wait(1):
        pass
    os.write(write, b"x")
    called.clear()
    assert sources.wait(1)
    assert sorted(called) == ["file", "socket"], "each once"
    os.close(read)
    os.close(write)


def test_what_came_while_something_was_sent_is_not_missed(pair: Pair, sources: Sources) -> None:
    """Sending takes the signal that something came."""
    here, there = pair
    got: list[bytes] = []

    def receive() -> None:
        try:
            got.append(here.recv(zmq.NOBLOCK))
        except zmq.Again:
            return

    sources.add(here, receive)
    sources.wait(0)
    began = monotonic()
    for number in range(100):
        there.send(b"%d" % number)
        here.send(b"answer")
        here.getsockopt(zmq.EVENTS)
        while len(got) <= number:
            sources.wait(5)
    assert monotonic() - began < 5


def test_it_waits_no_longer_than_told(pair: Pair, sources: Sources) -> None:
    sources.add(pair[0], lambda: None)
    while sources.wait(0.01):
        pass
    began = monotonic()
    assert not sources.wait(0.05)
    assert 0.04 < monotonic() - began < 2
