"""What wakes the receiver: nothing is missed, and nothing starves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial
from time import monotonic

import pytest
import zmq

from rpclib_zmq.receiver.sources import Sources

Ends = tuple[socket.socket, socket.socket]
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
    os.write(write, b"x")
    for _ in range(3):
        called.clear()
        sources.wait(5)
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


@pytest.fixture
def ends() -> Iterator[Ends]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def test_a_handler_removed_during_a_round_is_not_called(sources: Sources) -> None:
    pipes = [os.pipe() for _ in range(3)]
    called: list[int] = []

    def first(file: int) -> None:
        """Whichever comes first ends the others."""
        called.append(file)
        for other, _ in pipes:
            if other != file:
                sources.remove(other)

    for read, write in pipes:
        sources.add(read, partial(first, read))
        os.write(write, b"x")
    for _ in range(3):
        sources.wait(1)
    assert called == [called[0]] * 3
    for read, write in pipes:
        sources.remove(read)  # again, for two of them
        os.close(read)
        os.close(write)


def test_what_ends_while_writing_is_neither_read_nor_written(sources: Sources, ends: Ends) -> None:
    called: list[str] = []

    def write() -> None:
        called.append("write")
        for end in ends:
            sources.remove(end.fileno())

    for end in ends:
        sources.add(end.fileno(), lambda: called.append("read"))
        sources.when_writable(end.fileno(), write)
        end.send(b"x")
    sources.wait(1)
    sources.wait(0)
    assert called == ["write"]


def test_a_descriptor_with_the_number_of_a_removed_one_has_its_own_handlers(sources: Sources) -> None:
    called: list[str] = []
    read, write = os.pipe()
    sources.add(read, lambda: called.append("old"))
    sources.when_writable(read, lambda: called.append("old"))
    sources.remove(read)
    os.write(write, b"x")
    sources.add(read, lambda: called.append("new"))
    sources.wait(1)
    assert called == ["new"]
    sources.remove(read)
    os.close(read)
    os.close(write)


def test_writable_is_told_only_while_wanted(sources: Sources, ends: Ends) -> None:
    here, there = ends
    file, called = here.fileno(), list[str]()
    sources.add(file, lambda: called.append("read"))
    sources.wait(0)
    assert called == []
    sources.when_writable(file, lambda: called.append("write"))
    sources.wait(1)
    sources.wait(1)
    assert called == ["write"] * 2
    there.send(b"x")
    sources.wait(1)
    assert called == ["write", "write", "write", "read"]
    called.clear()
    sources.when_writable(file, None)
    sources.when_writable(file, None)
    sources.wait(1)
    assert called == ["read"]
    here.recv(1)
    sources.when_writable(file, lambda: called.append("write"))
    while not _full(here):
        pass
    called.clear()
    sources.wait(0)
    assert called == []
    there.recv(1 << 20)
    sources.wait(1)
    assert called == ["write"]


def _full(connection: socket.socket) -> bool:
    try:
        connection.send(bytes(1 << 16))
    except BlockingIOError:
        return True
    return False


def test_the_end_of_the_other_side_is_read(sources: Sources, ends: Ends) -> None:
    here, there = ends
    called: list[str] = []
    sources.add(here.fileno(), lambda: called.append("read"))
    there.close()
    sources.wait(1)
    assert called == ["read"]


def test_it_waits_no_longer_than_told(pair: Pair, sources: Sources) -> None:
    sources.add(pair[0], lambda: None)
    sources.wait(0.01)  # for what a new socket has to tell
    began = monotonic()
    sources.wait(0.05)
    assert 0.04 < monotonic() - began < 2
