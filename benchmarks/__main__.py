"""``python -m benchmarks``: measure rpclib beside everything else on this machine. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks import machine, plots, report
from benchmarks.peers import PEERS, Peer
from benchmarks.run import Results, Run
from benchmarks.screen import Screen
from benchmarks.work import FULL, FULL_PLAN, QUICK_PLAN, Plan


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # brokers must not outlive this
    plan, peers = _plan(options), _peers(options.peers)
    console = Console(width=None if sys.stdout.isatty() else 110)
    described = machine.describe()
    console.print(", ".join(f"{key} {value}" for key, value in described.items()))
    results = _measure(plan, peers, console)
    if (cpu := report.cpu_table(results)) is not None:
        console.print(cpu)
    if (reached := report.goals_table(results)).row_count:
        console.print(reached)
    for line in report.absent(results):
        console.print(line, style="yellow", markup=False)
    options.out.mkdir(parents=True, exist_ok=True)
    found = report.as_json(results, plan, described)
    (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    console.print(f"written: {options.out}/results.json", *plots.draw(found, options.out), markup=False)
    if results.interrupted:
        return 128 + signal.SIGINT
    return 1 if any(name.startswith("rpclib") for failed in results.failed.values() for name in failed) else 0


def _measure(plan: Plan, peers: list[Peer], console: Console) -> Results:
    with tempfile.TemporaryDirectory(prefix="rpclib-bench-") as folder:
        run = Run(plan, peers, Path(folder))
        expected = {work.key: plan.rounds * len(run.participants(work)) for work in plan.work}
        try:
            with Screen(console, sum(expected.values())) as screen:
                screen.say("starting brokers")
                run.prepare()
                for work in plan.work:
                    screen.say(work.title)
                    done = 0

                    def watch(*seen: object, of: Screen = screen) -> None:
                        nonlocal done
                        done += 1
                        of.show(*seen)  # type: ignore[arg-type]

                    run.measure(work, watch)
                    screen.finish(work, run.results, expected[work.key] - done)
        except KeyboardInterrupt:
            run.results.interrupted = True
        finally:
            run.close()
        return run.results


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a subset, in under two minutes")
    parser.add_argument("--peers", metavar="NAMES", help=f"only these, separated by commas: {_names(PEERS)}")
    parser.add_argument("--work", metavar="KEYS", help=f"only this: {', '.join(work.key for work in FULL)}")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long a sample should take")
    parser.add_argument(
        "--out", type=Path, default=Path("build/benchmarks"), help="folder for results (default: %(default)s)"
    )
    return parser


def _names(peers: tuple[Peer, ...]) -> str:
    return ", ".join(peer.name for peer in peers)


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK_PLAN if options.quick else FULL_PLAN
    if options.work:
        plan = replace(
            plan, work=[work for work in FULL if work.key in _chosen(options.work, {w.key for w in FULL})]
        )
    return replace(plan, rounds=options.rounds or plan.rounds, seconds=options.seconds or plan.seconds)


def _peers(names: str | None) -> list[Peer]:
    if not names:
        return list(PEERS)
    chosen = _chosen(names, {peer.name for peer in PEERS})
    return [peer for peer in PEERS if peer.name in chosen]


def _chosen(text: str, known: set[str]) -> set[str]:
    chosen = {name.strip() for name in text.split(",")}
    if unknown := chosen - known:
        sys.exit(f"error: unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
