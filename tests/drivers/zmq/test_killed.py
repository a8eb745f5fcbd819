"""What a program had sent before it was killed counts, and its death is noticed whatever it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.records import Record
from tests.drivers.zmq import by_hand
from tests.drivers.zmq.by_hand import ANSWERS, TAG, TOPIC, Program, data

if TYPE_CHECKING:
    from tests.drivers.zmq.conftest import Machine

MESSAGES = (header.DELIVER, header.REDELIVER, header.UNDELIVERABLE, header.LOST)


class Mortal:
    """The program of `by_hand`, whose children serve `TOPIC` and are killed as soon as they have answered."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode())
        self._process.stdin.flush()

    def expect(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().decode() == word + "\n"


@contextmanager
def mortal(machine: Machine) -> Iterator[Mortal]:
    command = [sys.executable, by_hand.__file__, str(machine.path / "receiver.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Mortal(process)
        finally:
            process.kill()


@pytest.fixture
def asker(machine: Machine) -> Iterator[Program]:
    """A session with an inbox."""
    machine.receiver()
    program = Program(str(machine.path / "receiver.sock"))
    program.greet()
    program.subscribe(program.inbox)
    yield program
    program.close()


def answers(asker: Program) -> list[tuple[int, bytes]]:
    """What comes of one question: its answers, or something else."""
    found: list[tuple[int, bytes]] = []
    while len(found) < len(ANSWERS):
        record = asker.next(*MESSAGES)
        found.append((record.kind, record.payload))
        if record.kind != header.DELIVER:
            break
    return found


ALL_OF_THEM = [(header.DELIVER, answer) for answer in ANSWERS]


def sessions(machine: Machine) -> int:
    return len(machine.status()["sessions"])


@pytest.mark.parametrize("first", ["next\n", "heir\n"], ids=["alone", "with a child that holds its connection"])
def test_what_a_killed_program_had_sent_arrives(machine: Machine, asker: Program, first: str) -> None:
    with mortal(machine) as program:
        for _ in range(30):
            program.tell(first)
            program.expect("serving")
            asker.say(data(TOPIC, asker.inbox))
            program.expect("asked")
            program.tell("!")
            assert answers(asker) == ALL_OF_THEM
            program.expect("dead")
            machine.wait_for(lambda: sessions(machine) == 1, "the session to end")


def test_what_a_killed_program_had_sent_arrives_though_nothing_can_be_sent_to_it(
    machine: Machine, asker: Program
) -> None:
    """The receiver finds that out while it hands over more, before it has read the answer."""
    receiver, other = machine.receiver_pid(), b"m" * 16
    with mortal(machine) as program:
        program.tell("next\n")
        program.expect("serving")
        asker.say(data(TOPIC, asker.inbox))
        program.expect("asked")
        os.kill(receiver, signal.SIGSTOP)
        asker.say(*[data(TOPIC, b"more" * 15_000)._replace(tag=other)] * 2)
        program.tell("!")
        program.expect("dead")
        os.kill(receiver, signal.SIGCONT)
        found: list[Record] = []
        while sum(record.tag == other for record in found) < 2:
            found.append(asker.next(*MESSAGES))
    assert [(record.kind, record.payload) for record in found if record.tag == TAG] == ALL_OF_THEM


def test_the_question_of_a_killed_program_is_lost_though_a_child_holds_its_connection(
    machine: Machine, asker: Program
) -> None:
    with mortal(machine) as program:
        program.tell("heir\n")
        program.expect("serving")
        asker.say(data(TOPIC, asker.inbox))
        program.expect("asked")
        [pid] = {session["pid"] for session in machine.status()["sessions"]} - {os.getpid()}
        os.kill(pid, signal.SIGKILL)
        program.expect("dead")
        lost = asker.next(*MESSAGES)
        assert (lost.kind, lost.tag) == (header.LOST, TAG)
        assert sessions(machine) == 1
