"""Measuring: all peers, interleaved round by round, one piece of work after the other."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks import brokers
from benchmarks.brokers import Broker, NotStarted
from benchmarks.peers import Peer
from benchmarks.process import Arrangement, PeerFailed, Sample
from benchmarks.work import Plan, Work

T = TypeVar("T")

FEWEST = 10
"""Operations of the first look at a peer's speed."""


@dataclass
class Results:
    """Everything that was measured, and who is missing from it."""

    samples: dict[str, dict[str, dict[int, Sample]]] = field(default_factory=dict)
    """By work, peer and round."""
    missing: dict[str, str] = field(default_factory=dict)
    """Peers that did not take part at all, with the reason."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Work that cannot be done on this machine, with the reason."""
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    """By work: peers that failed in it, with the reason."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the brokers and libraries."""
    interrupted: bool = False
    """Whether the run was stopped before it had measured everything."""

    def add(self, work: Work, peer: Peer, number: int, sample: Sample) -> None:
        self.samples.setdefault(work.key, {}).setdefault(peer.name, {})[number] = sample

    def fail(self, work: Work, peer: Peer, reason: str) -> None:
        """What a peer failed in is not reported as measured."""
        self.failed.setdefault(work.key, {})[peer.name] = reason
        self.samples.get(work.key, {}).pop(peer.name, None)


Watcher = Callable[[Work, Results, int], None]
"""Told after each sample: the work, what there is so far, and how many samples of the work are done."""


class Run:
    """One run on one machine. Brokers are started when first needed and end with it."""

    def __init__(self, plan: Plan, peers: list[Peer], folder: Path) -> None:
        self.plan = plan
        self.results = Results()
        self._folder = folder
        self._peers = peers
        self._brokers: dict[str, Broker] = {}
        self._standing: dict[tuple[str, int, int], Arrangement] = {}
        self._numbers = itertools.count(1)
        self._began = time.monotonic()

    def participants(self, work: Work) -> list[Peer]:
        return [
            peer
            for peer in self._peers
            if work.kind in peer.does and work.in_flight <= peer.widest and peer.name not in self.results.missing
        ]

    def prepare(self) -> None:
        """Start the brokers; note who cannot take part."""
        for peer in self._peers:
            reason = peer.missing()
            if reason is None and peer.broker not in self._brokers:
                try:
                    broker = brokers.start(peer.broker, self._folder)
                except NotStarted as error:
                    reason = str(error)
                else:
                    self._brokers[peer.broker] = broker
                    if broker.version:
                        self.results.versions[peer.broker] = broker.version
            if reason is not None:
                self.results.missing[peer.name] = reason

    def measure(self, work: Work, watcher: Watcher) -> None:
        """Do one piece of work for all rounds. A peer that fails is left out from then on, and named."""
        if work.command == "trace" and shutil.which("strace") is None:
            self.results.skipped[work.key] = "strace is not installed: apt-get install strace"
            return
        self._stand(work)
        sizes: dict[str, int] = {}
        for peer in self._able(work):
            if (n := self._attempt(work, peer, self._size)) is not None:
                sizes[peer.name] = n
        done = 0
        for number in range(self.plan.rounds):
            if number and self._is_late(work):
                break
            peers = self._able(work)
            shift = number % max(1, len(peers))
            for peer in peers[shift:] + peers[:shift]:
                sample = self._attempt(work, peer, partial(self._sample, sizes[peer.name]))
                if sample is not None:
                    self.results.add(work, peer, number, sample)
                done += 1
                watcher(work, self.results, done)

    def _able(self, work: Work) -> list[Peer]:
        """Those that have not failed in it so far."""
        return [peer for peer in self.participants(work) if peer.name not in self.results.failed.get(work.key, {})]

    def _is_late(self, work: Work) -> bool:
        """Whether this work has used up its part of the time, and what earlier work left of theirs."""
        if self.plan.limit is None:
            return False
        share = (self.plan.work.index(work) + 1) / len(self.plan.work)
        return time.monotonic() - self._began > self.plan.limit * share

    def close(self) -> None:
        for arrangement in self._standing.values():
            arrangement.stop()
        for broker in self._brokers.values():
            broker.stop()

    def _attempt(self, work: Work, peer: Peer, what: Callable[[Work, Peer], T]) -> T | None:
        try:
            return what(work, peer)
        except PeerFailed as error:
            self.results.fail(work, peer, str(error))
            self._stop(peer, work)
            return None

    def _size(self, work: Work, peer: Peer) -> int:
        """How many operations take about the planned time. Warms up on the way."""
        if work.fixed is not None:
            return work.fixed
        arrangement = self._arrangement(work, peer)
        n = max(FEWEST, 2 * work.in_flight, 2 * work.topics)
        least = n
        for share in (0.1, 0.5, 1.0):
            sample = arrangement.measure(work.command, *work.numbers(n))
            n = max(least, int(sample.rate * self.plan.seconds * share))
        return n

    def _sample(self, n: int, work: Work, peer: Peer) -> Sample:
        if work.command == "trace":
            return self._arrangement(work, peer).system_calls(n, work.in_flight)
        if not work.is_memory:
            return self._arrangement(work, peer).measure(work.command, *work.numbers(n))
        # Memory is measured in fresh processes: what one round allocated would be free for the next.
        self._stop(peer, work)
        arrangement = self._arrangement(work, peer)
        return arrangement.bytes_in_flight(n) if work.command == "pending" else arrangement.bytes_of_client(n)

    def _arrangement(self, work: Work, peer: Peer) -> Arrangement:
        key = (peer.name, work.servers, work.topics)
        if key not in self._standing:
            run = f"bench{next(self._numbers)}"
            broker = self._brokers[peer.broker]
            made = Arrangement(peer, broker, self._folder, run, work.servers, work.topics)
            self._standing[key] = made
            self.results.versions.update(made.opened["versions"])
        return self._standing[key]

    def _stop(self, peer: Peer, work: Work) -> None:
        arrangement = self._standing.pop((peer.name, work.servers, work.topics), None)
        if arrangement is not None:
            arrangement.stop()

    def _stand(self, work: Work) -> None:
        """Start what this work uses, several at a time, and end the rest: idle peers would disturb the others."""
        peers = [] if work.is_memory else self.participants(work)
        wanted = {(peer.name, work.servers, work.topics) for peer in peers}
        for key in [key for key in self._standing if key not in wanted]:
            self._standing.pop(key).stop()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda peer: self._attempt(work, peer, self._arrangement), peers))
