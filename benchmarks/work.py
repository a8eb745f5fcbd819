"""What is measured, and how long for."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20
PAYLOADS = {"0 B": 0, "1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": MIB}
IN_FLIGHT = (8, 64, 512)
SERVERS = (1, 4, 16)
PROCESSES = (1, 2, 4)
TOPICS = (1, 10, 100, 1000)
BESIDE_PAYLOAD = 8
"""Calls in flight while the payload is varied."""
PENDING = 2000
CLIENTS = 20
THREADS = 32


@dataclass(frozen=True)
class Work:
    """One row of figures: every peer that does ``kind`` is measured with it in every round."""

    key: str
    title: str
    kind: str
    """What a peer must be able to do, see `Peer.does`."""
    command: str
    """What the client is told; see benchmarks/child.py."""
    in_flight: int = 1
    payload: int = 0
    servers: int = 1
    topics: int = 1
    fixed: int | None = None
    """How many operations a sample has; by default as many as take the asked-for time."""

    @property
    def is_latency(self) -> bool:
        return self.command == "latency"

    @property
    def is_memory(self) -> bool:
        return self.command in ("pending", "clients")

    @property
    def lower_is_better(self) -> bool:
        return self.unit != "a second"

    @property
    def unit(self) -> str:
        units = {"latency": "us, median", "pending": "bytes each", "clients": "bytes each", "trace": "a call"}
        return units.get(self.command, "a second")

    def numbers(self, n: int) -> tuple[int, ...]:
        """The operands of the command."""
        middle = (self.in_flight,) if self.command == "call" else ()
        return (n, *middle, self.payload)


def _calls(key: str, title: str, kind: str, in_flight: int, **more: int) -> Work:
    return Work(key, title, kind, "call", in_flight, **more)


SEQUENTIAL = Work("latency", "calls, one at a time", "latency", "latency")
CASTS = Work("casts", "casts until executed", "casts", "cast")
CALLS = [_calls(f"calls-{width}", f"calls, {width} in flight", "calls", width) for width in IN_FLIGHT]
ON_THREADS = _calls(f"threads-{THREADS}", f"calls from {THREADS} threads", "threads", THREADS)
ECHOES = [
    _calls(
        f"payload-{size}", f"calls of {name}, {BESIDE_PAYLOAD} in flight", "payload", BESIDE_PAYLOAD, payload=size
    )
    for name, size in PAYLOADS.items()
]
FANOUTS = [
    Work(f"fanout-{count}", f"fanout to {count} servers", "fanout", "fanout", servers=count) for count in SERVERS
]
SPREAD = [
    _calls(f"workers-{count}", f"calls to {count} processes, 64 in flight", "workers", 64, servers=count)
    for count in PROCESSES
]
OVER_TOPICS = [
    _calls(f"topics-{count}", f"calls to {count} topics, 64 in flight", "topics", 64, topics=count)
    for count in TOPICS
]
MEMORY = [
    Work("idle-client", "memory of an idle client", "pending", "clients", fixed=CLIENTS),
    Work("in-flight", "memory of a call in flight", "pending", "pending", fixed=PENDING),
]

SYSTEM_CALLS = [
    Work("system-calls-1", "system calls, one at a time", "latency", "trace", fixed=200),
    Work("system-calls-64", "system calls, 64 in flight", "calls", "trace", 64, fixed=640),
]

FULL = [SEQUENTIAL, *CALLS, CASTS, ON_THREADS, *ECHOES, *FANOUTS, *SPREAD, *OVER_TOPICS, *SYSTEM_CALLS, *MEMORY]
QUICK = [SEQUENTIAL, CALLS[1], CASTS, ECHOES[-1]]
"""A subset that says the most."""


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    work: list[Work]
    rounds: int
    seconds: float
    """How long a sample should take."""
    limit: float | None = None
    """Seconds after which no round is begun any more, but the first of each work; shared among the work."""


FULL_PLAN = Plan(FULL, rounds=7, seconds=1.0)
QUICK_PLAN = Plan(QUICK, rounds=3, seconds=0.2, limit=80.0)
