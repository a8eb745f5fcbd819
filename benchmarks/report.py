"""What a run found, as JSON and as tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks import goals, stats
from benchmarks.peers import BASELINES, PEERS, Peer
from benchmarks.run import Results
from benchmarks.stats import Figure
from benchmarks.work import FULL, Plan, Work

CPU_WORK = "calls-64"


def as_json(results: Results, plan: Plan, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything: the summary, and each sample it is made of. Latencies are kept as quantiles."""
    return {
        "machine": machine,
        "versions": results.versions,
        "interrupted": results.interrupted,
        "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "work": [work.key for work in plan.work]},
        "skipped": results.skipped,
        "missing": results.missing,
        "failed": results.failed,
        "work": {work.key: _work_as_json(results, work) for work in plan.work},
        "goals": [
            {**asdict(goal), "found": asdict(found), "verdict": goal.verdict(found.median)}
            for goal in goals.read()
            if (found := goal.figure(results)) is not None
        ],
    }


def _work_as_json(results: Results, work: Work) -> dict[str, Any]:
    peers: dict[str, dict[str, Any]] = {}
    for name, by_round in results.samples.get(work.key, {}).items():
        samples = list(by_round.values())
        peers[name] = {
            "figure": asdict(stats.figure([stats.value_of(work, sample) for sample in samples])),
            "cpu_seconds_per_10000": stats.cpu_per_operations(samples),
            "ratio": _optional(ratio_to_baseline(results, work, _peer(name))),
            "samples": [
                {
                    "n": sample.n,
                    "seconds": sample.seconds,
                    "foreign": round(sample.foreign, 3),
                    "each": sample.each,
                }
                for sample in samples
            ],
        }
        if work.is_latency:
            pooled = [latency for sample in samples for latency in sample.latencies]
            peers[name]["p50"], peers[name]["p99"] = (stats.quantile(pooled, share) for share in (0.5, 0.99))
            peers[name]["curve"] = stats.curve(pooled)
    return {"title": work.title, "unit": work.unit, "in_flight": work.in_flight, "peers": peers}


def ratio_to_baseline(results: Results, work: Work, peer: Peer) -> Figure | None:
    """To the hand-written code of the peer's family, round by round."""
    values = goals.values_of(results, work.key, peer.name)
    return stats.ratios(values, goals.values_of(results, work.key, BASELINES[peer.family]))


def table(results: Results, work: Work) -> Table:
    """The figures of one piece of work."""
    better = "lower" if work.lower_is_better else "higher"
    made = Table(title=f"{work.title} ({work.unit}; {better} is better)", title_justify="left")
    for heading in _headings(work):
        made.add_column(heading, justify="right" if heading else "left")
    for family in BASELINES:
        for peer in PEERS:
            if peer.family != family:
                continue
            if peer.name in results.samples.get(work.key, {}):
                cells = _cells(results, work, peer)
                made.add_row(*(cells[heading] for heading in _headings(work)))
            elif peer.name in results.failed.get(work.key, {}):
                made.add_row(peer.name, "failed")
        made.add_section()
    return made


_HEADINGS = ("median", "+-", "p99", "x baseline", "lowest-highest", "others' CPU")


def _headings(work: Work) -> tuple[str, ...]:
    left_out = _HEADINGS[2:] if work.is_memory else () if work.is_latency else ("p99",)
    return ("", *(heading for heading in _HEADINGS if heading not in left_out))


def _cells(results: Results, work: Work, peer: Peer) -> dict[str, str]:
    samples = list(results.samples[work.key][peer.name].values())
    found = stats.figure([stats.value_of(work, sample) for sample in samples])
    ratio = ratio_to_baseline(results, work, peer)
    latencies = [latency for sample in samples for latency in sample.latencies]
    return {
        "": peer.name,
        "median": f"{found.median:,.1f}" if work.command == "trace" else f"{found.median:,.0f}",
        "+-": f"{found.spread:.0%}",
        "p99": f"{stats.quantile(latencies, 0.99):,.0f}" if latencies else "",
        "x baseline": f"{ratio.median:.2f}" if ratio else "",
        "lowest-highest": f"{ratio.low:.2f}-{ratio.high:.2f}" if ratio else "",
        "others' CPU": f"{stats.figure([sample.foreign for sample in samples]).median:.0%}",
    }


def cpu_table(results: Results) -> Table | None:
    """CPU seconds of each side; None when the work that shows it was not done."""
    samples = results.samples.get(CPU_WORK)
    if not samples:
        return None
    title = f"CPU seconds for {stats.OPERATIONS:,} calls, 64 in flight (lower is better)"
    made = Table(title=title, title_justify="left")
    for heading in ("", "client", "server", "broker", "all"):
        made.add_column(heading, justify="right" if heading else "left")
    for peer in PEERS:
        if peer.name in samples:
            used = stats.cpu_per_operations(list(samples[peer.name].values()))
            sides = [used[side] for side in ("client", "server", "broker")]
            made.add_row(peer.name, *(f"{seconds:.2f}" for seconds in [*sides, sum(sides)]))
    return made


def goals_table(results: Results) -> Table:
    made = Table(title="goals (ratios within this run)", title_justify="left")
    for heading in ("", "over", "goal", "stretch", "found", "lowest-highest", ""):
        made.add_column(heading)
    for goal in goals.read():
        found = goal.figure(results)
        if found is None:
            continue
        over = goal.against if goal.beside is None else f"{goal.against}, {goal.beside}"
        stretch = "" if goal.stretch is None else f"{goal.stretch:g}"
        verdict = {"short": "[red]short", "reached": "[green]reached", "stretch": "[bold green]stretch"}
        made.add_row(
            goal.title,
            over or "",
            goal.bound,
            stretch,
            f"{found.median:,.2f}",
            f"{found.low:,.2f}-{found.high:,.2f}",
            verdict[goal.verdict(found.median)],
        )
    return made


def absent(results: Results) -> list[str]:
    """A line for an interruption, each work that was skipped, and each peer that did not take part or failed."""
    titles = {work.key: work.title for work in FULL}
    lines = ["interrupted: this is what had been measured"] if results.interrupted else []
    lines += [f"not measured: {titles[key]} ({reason})" for key, reason in results.skipped.items()]
    lines += [f"missing: {name} ({reason})" for name, reason in results.missing.items()]
    for key, peers in results.failed.items():
        lines += [f"failed: {name} in {titles[key]} ({reason})" for name, reason in peers.items()]
    return lines


def _optional(figure: Figure | None) -> dict[str, float] | None:
    return None if figure is None else asdict(figure)


def _peer(name: str) -> Peer:
    return next(peer for peer in PEERS if peer.name == name)
