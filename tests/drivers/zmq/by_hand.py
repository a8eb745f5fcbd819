"""Sessions by hand, and programs that die with them: ``by_hand.py SOCKET``.

The program forks a child for each line on its standard input, one after another. Each child serves `TOPIC`, says
"serving", takes one message, says "asked", waits for another line, sends `ANSWERS` to the address that the message
holds, and is killed at once. The program says "dead" when it is. When the first line was "heir", a child of that
child lives on with its connection, until the program ends.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import PROTOCOL, read_json, stamp
from rpclib_zmq.protocol.records import LARGE, Record, read
from rpclib_zmq.protocol.wire import Wire
from rpclib_zmq.protocol.zmtp import Frame

TOPIC = b"Orpclib/t/a"
TAG = b"t" * 16
ANSWERS = [b"first", b"x" * (LARGE - 1), b"y" * LARGE, *(b"%d" % number for number in range(20)), b"z" * 60_000]
"""Little enough to be written while nobody reads."""
_SECONDS = 10.0


class Program:
    """A connection to a receiver that waits for each thing. Close once."""

    def __init__(self, path: str) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        self.node = ""
        self.number = 0
        self._records: list[Record] = []
        self._messages: list[list[Frame]] = []
        self._wire = Wire(connection, b"DEALER", self._messages.append, lambda wanted: None, 1 << 30)

    def greet(self) -> None:
        """Begin a session."""
        self.hello()
        welcome = self.welcome()
        self.node, self.number = welcome["node"], welcome["session"]

    def hello(self) -> None:
        greeting = b'{"protocol": %d, "pid": %d, "program": "by hand"}' % (PROTOCOL, os.getpid())
        self._wire.send((header.greeting(header.HELLO), greeting))

    def welcome(self) -> dict[str, Any]:
        while not self._messages:
            self._read("the welcome")
        return read_json(bytes(self._messages.pop(0)[1]))

    @property
    def inbox(self) -> bytes:
        """The name of an inbox of this session."""
        return header.inbox_prefix(self.node, self.number) + b"1"

    def subscribe(self, name: bytes) -> None:
        self.say(Record(header.SUBSCRIBE, 1, name=name))
        self.next(header.SUBSCRIBED)

    def say(self, *records: Record) -> None:
        """Send one batch; returns when it is written."""
        large = [record.payload for record in records if len(record.payload) >= LARGE]
        batch = [
            record._replace(payload=b"", size=len(record.payload)) if len(record.payload) >= LARGE else record
            for record in records
        ]
        self._wire.send([b"".join(record.encode() for record in batch), *large])
        while self._wire.write():
            select.select([], [self._wire], [], _SECONDS)

    def next(self, *kinds: int) -> Record:
        """The next record that is of one of these kinds."""
        while True:
            while not self._records:
                while not self._messages:
                    self._read(f"a record of {kinds}")
                self._records += _records(self._messages.pop(0))
            record = self._records.pop(0)
            if record.kind in kinds:
                return record

    def close(self) -> None:
        self._wire.close()

    def _read(self, what: str) -> None:
        deadline = monotonic() + _SECONDS
        while not self._wire.read():
            assert not self._wire.ended, f"the connection ended before {what}"
            assert monotonic() < deadline, f"not in time: {what}"
            select.select([self._wire], [], [], 1)


def data(name: bytes, payload: bytes) -> Record:
    return Record(header.DATA, 1, value=stamp(monotonic()), tag=TAG, payload=payload, name=name)


def _records(frames: list[Frame]) -> Iterator[Record]:
    batch, *large = map(bytes, frames)
    offset = 0
    while offset < len(batch):
        record, offset = read(batch, offset)
        yield record if record.size < LARGE else record._replace(payload=large.pop(0))


def _answer_and_die(path: str, heir: bool, alive: int) -> None:
    program = Program(path)
    program.greet()
    program.subscribe(TOPIC)
    if heir and not os.fork():
        os.read(alive, 1)
        os._exit(0)
    _say("serving")
    asked = program.next(header.DELIVER)
    _say("asked")
    os.read(0, 1)
    program.say(
        Record(header.TAKEN, 1, value=1, ttl=asked.size),
        *(data(asked.payload, answer)._replace(tag=asked.tag) for answer in ANSWERS),
    )
    os.kill(os.getpid(), signal.SIGKILL)


def _say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def main() -> None:
    alive, held = os.pipe()
    while line := os.read(0, 5):
        child = os.fork()
        if not child:
            os.close(held)
            _answer_and_die(sys.argv[1], line == b"heir\n", alive)
        os.waitpid(child, 0)
        _say("dead")


if __name__ == "__main__":
    main()
