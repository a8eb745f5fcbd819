"""The benchmark's side of a peer's processes: an arrangement is one client and its servers."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.brokers import Broker
from benchmarks.peers import Peer
from benchmarks.place import Place
from benchmarks.usage import Machine, Trace, cpu_seconds, resident

READY_WITHIN = 60.0
ANSWER_WITHIN = 60.0


class PeerFailed(Exception):
    """A peer did not start, or did not do what it was asked; a line."""


class Child:
    """One process of a peer. Its errors go to ``log``."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        self.pid = self._process.pid

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(self._last_words()) from None

    def answer(self, seconds: float, others: Iterable[Child] = ()) -> dict[str, Any]:
        """The next line it says. Raises PeerFailed for an error, silence, and the end of it or of ``others``."""
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while not select.select([self._process.stdout], [], [], 0.5)[0]:
            for other in others:
                if other._process.poll() is not None:
                    raise PeerFailed(other._last_words())
            if time.monotonic() > end:
                raise PeerFailed(f"no answer within {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(self._last_words())
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise PeerFailed(said["error"])
        return said

    @contextmanager
    def suspended(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        self._process.poll()
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["without a word"]
        errors = [line for line in lines if re.match(r"\w[\w.]*(Error|Exception|Lost|Failed)\b", line)]
        return f"a process of it ended: {(errors or lines)[-1]}"[:300]


@dataclass
class Sample:
    """One measurement: ``n`` operations in ``seconds``, and the CPU seconds that each side used for them."""

    n: int
    seconds: float
    cpu: dict[str, float]
    foreign: float = 0.0
    """The share of the machine that anybody else used meanwhile; not told for memory."""
    latencies: list[float] = field(default_factory=list)
    """Microseconds each, for work that is done one at a time."""
    each: float | None = None
    """For work that is not timed: bytes, or system calls, that one operation takes."""

    @property
    def rate(self) -> float:
        return self.n / self.seconds


class Arrangement:
    """A client and its servers, started and ready."""

    def __init__(self, peer: Peer, broker: Broker, folder: Path, run: str, servers: int, topics: int) -> None:
        """Raises PeerFailed when a process does not get ready."""
        self.peer = peer
        self._broker = broker
        self._children: list[Child] = []
        url = f"fake://{run}" if peer.inside else broker.url
        place = Place(peer.module, "client", url, run, str(folder), servers, 0, topics, peer.flags)
        place.tally().create()
        log = folder / "logs" / f"{run}.log"
        log.parent.mkdir(exist_ok=True)
        try:
            for index in range(0 if peer.inside else servers):
                self._start(replace(place, role="server", index=index), log)
            self.servers = list(self._children)
            for server in self.servers:
                server.answer(READY_WITHIN)
            self.client = self._start(place, log)
            self.opened = self.client.answer(READY_WITHIN, self.servers)
        except BaseException:
            self.stop()
            raise

    def measure(self, command: str, *numbers: int) -> Sample:
        """Have the client do something. Raises PeerFailed."""
        servers, broker = [server.pid for server in self.servers], self._broker.pids()
        machine, before = Machine(), [cpu_seconds(pids) for pids in (servers, broker)]
        client = cpu_seconds([self.client.pid])
        self.client.send(" ".join([command, *map(str, numbers)]))
        said = self.client.answer(ANSWER_WITHIN, self.servers)
        used = [cpu_seconds(pids) - was for pids, was in zip((servers, broker), before, strict=True)]
        foreign = machine.foreign(sum(used) + cpu_seconds([self.client.pid]) - client)
        cpu = {"client": said["cpu"], "server": used[0], "broker": used[1]}
        return Sample(numbers[0], said["seconds"], cpu, foreign, said["latencies"])

    def bytes_in_flight(self, n: int) -> Sample:
        """What a call in flight takes in the client: ``n`` calls while the server is suspended."""
        self.measure("call", 64, 64, 0)
        before = resident(self.client.pid)
        with self.servers[0].suspended():
            self.client.send(f"call {n} {n} 0")
            _wait_until_quiet(self.client.pid)
            taken = (resident(self.client.pid) - before) / n
        said = self.client.answer(ANSWER_WITHIN, self.servers)
        return Sample(n, said["seconds"], {}, each=taken)

    def system_calls(self, n: int, in_flight: int) -> Sample:
        """What ``n`` calls take in client and servers, and in the receiver, which is rpclib's own. Needs strace."""
        pids = [self.client.pid, *(server.pid for server in self.servers)]
        if self.peer.broker == "receiver":
            pids += self._broker.pids()
        self.measure("call", n, in_flight, 0)
        traces = [Trace(pid) for pid in pids]
        try:
            sample = self.measure("call", n, in_flight, 0)
        finally:
            found = [trace.stop() for trace in traces]
        if not all(found):
            raise PeerFailed("strace could not trace all of its processes")
        return replace(sample, each=sum(found) / n)

    def bytes_of_client(self, n: int) -> Sample:
        """What an idle client takes: ``n`` more in the client's process."""
        self.client.send(f"open {n}")
        return Sample(n, 1.0, {}, each=self.client.answer(ANSWER_WITHIN, self.servers)["bytes"])

    def stop(self) -> None:
        for child in self._children:
            child.stop()

    def _start(self, place: Place, log: Path) -> Child:
        child = Child(self.peer.command(place), log)
        self._children.append(child)
        return child


def _wait_until_quiet(pid: int) -> None:
    """Return when a process has used almost no CPU for a tenth of a second; at most 5 seconds."""
    before = cpu_seconds([pid])
    for _ in range(50):
        time.sleep(0.1)
        now = cpu_seconds([pid])
        if now - before < 0.002:
            return
        before = now
