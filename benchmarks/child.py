"""``python -m benchmarks.child PLACE``: a server or client process of one peer.

A client reads commands from its standard input, a line each, and answers each with one line of JSON. A server says
when it is ready and ends with its parent. Whatever else a library prints goes to the standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TextIO

from benchmarks.place import Place
from benchmarks.shapes import Client

EXECUTED_WITHIN = 20.0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    place = Place.decode(sys.argv[1])
    before = resident()
    module = importlib.import_module(f"benchmarks.peers.{place.module}")
    if place.role == "server":
        threading.Thread(target=_end_with_parent, daemon=True).start()
        module.serve(place, place.tally().counter(place.index), lambda: _say(answers, {"ready": True}))
        return
    client: Client = module.Client(place)
    imported = resident()
    client.open()
    memory = {"imported": imported - before, "opened": resident() - imported}
    _say(answers, {"ready": True, "memory": memory, "versions": _versions(module.DISTRIBUTIONS)})
    _obey(client, answers)


def _obey(client: Client, answers: TextIO) -> None:
    executed = client.place.tally().reader()
    kept: list[Client] = []
    while True:
        client.idle(0)
        words = sys.stdin.readline().split()
        if not words:
            os._exit(0)
        gc.collect()
        try:
            answer = _do(client, words[0], [int(word) for word in words[1:]], executed, kept)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        _say(answers, answer)


def _do(client: Client, command: str, numbers: list[int], executed: Any, kept: list[Client]) -> dict[str, Any]:
    if command == "open":
        return _open_more(client, numbers[0], kept)
    n, payload = numbers[0], b"x" * numbers[-1]
    target = executed() + n * (client.place.servers if command == "fanout" else 1)
    cpu, began = time.process_time(), time.perf_counter()
    times: list[float] = []
    match command:
        case "call":
            client.call(n, numbers[1], payload)
        case "latency":
            times = client.latencies(n, payload)
        case "cast":
            client.cast(n, payload)
            client.until(lambda: executed() >= target, EXECUTED_WITHIN)
        case "fanout":
            client.fanout(n, payload)
            client.until(lambda: executed() >= target, EXECUTED_WITHIN)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu": time.process_time() - cpu,
        "latencies": [round(one * 1e6, 1) for one in times],
    }


def _open_more(client: Client, n: int, kept: list[Client]) -> dict[str, Any]:
    """Open ``n`` more clients in this process and keep them: the bytes that each takes."""
    before = resident()
    for _ in range(n):
        one = client.another()
        one.open()
        kept.append(one)
    return {"bytes": (resident() - before) / n}


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Those of the libraries a peer is made of."""
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
