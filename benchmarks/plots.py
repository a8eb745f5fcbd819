"""Plots of a run, each as PNG and SVG: rate against concurrency, payload and servers; latencies; ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.peers import BASELINES, PEERS
from benchmarks.stats import CURVE

OURS = {"amqp": "#c1272d", "zmq": "#0072b2", "fake": "#7a7a7a"}
OTHERS = {
    "pika": "#222222",
    "librabbitmq (C)": "#c49c00",
    "oslo.messaging": "#e6550d",
    "aio-pika": "#31a354",
    "FastStream": "#756bb1",
    "pyzmq": "#222222",
    "pyzmq blocking": "#c49c00",
    "zmq.asyncio": "#a6761d",
    "zerorpc": "#e6550d",
    "Pyro5": "#31a354",
    "nats-py": "#756bb1",
}
PERCENTS = (50, 90, 99, 99.9)


def draw(found: dict[str, Any], folder: Path) -> list[str]:
    """Write what the run has figures for; the files' names. Needs matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return ["(no plots: matplotlib is not installed)"]
    matplotlib.use("Agg")
    figures = {
        "concurrency": _against(found, _IN_FLIGHT, "calls in flight", "calls a second"),
        "payload": _against(found, _PAYLOADS, "payload, bytes", "calls a second"),
        "fanout": _against(found, _FANOUTS, "servers", "fanouts a second"),
        "workers": _against(found, _WORKERS, "server processes", "calls a second"),
        "topics": _against(found, _TOPICS, "topics", "calls a second"),
        "latency": _latency(found),
        "ratios": _ratios(found),
    }
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        for ending in ("png", "svg"):
            figure.savefig(folder / f"{name}.{ending}", dpi=150, bbox_inches="tight")
            written.append(str(folder / f"{name}.{ending}"))
    return written


_IN_FLIGHT = {1.0: "latency", **{float(item.in_flight): item.key for item in work.CALLS}}
_PAYLOADS = {float(max(1, item.payload)): item.key for item in work.ECHOES}
_FANOUTS = {float(item.servers): item.key for item in work.FANOUTS}
_WORKERS = {float(item.servers): item.key for item in work.SPREAD}
_TOPICS = {float(item.topics): item.key for item in work.OVER_TOPICS}


def _rate(found: dict[str, Any], key: str, peer: str) -> tuple[float, float, float] | None:
    """Median, lowest and highest rate."""
    entry = found["work"].get(key, {}).get("peers", {}).get(peer)
    if entry is None:
        return None
    rates = sorted(sample["n"] / sample["seconds"] for sample in entry["samples"])
    return rates[len(rates) // 2], rates[0], rates[-1]


def _against(found: dict[str, Any], keys: dict[float, str], x_label: str, y_label: str) -> Any:
    """Rates of all peers over something that grows; None when fewer than two points were measured."""
    keys = {x: key for x, key in keys.items() if key in found["work"]}
    if len(keys) < 2:
        return None
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5.5), sharey=True)
    for axis, family in zip(axes, BASELINES, strict=True):
        for peer in _shown(family):
            points = [(x, rate) for x, key in keys.items() if (rate := _rate(found, key, peer))]
            if not points:
                continue
            xs, rates = [x for x, _ in points], [rate for _, rate in points]
            style = _style(peer)
            axis.plot(xs, [rate[0] for rate in rates], label=peer, marker="o", markersize=4, **style)
            axis.fill_between(
                xs, [rate[1] for rate in rates], [rate[2] for rate in rates], color=style["color"], alpha=0.12, lw=0
            )
        axis.set(xscale="log", yscale="log", xlabel=x_label, title=family)
        axis.set_xticks(list(keys), [f"{x:g}" for x in keys])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel(y_label)
    return _finished(figure, found)


def _latency(found: dict[str, Any]) -> Any:
    """Quantiles of calls made one at a time."""
    peers = found["work"].get(work.SEQUENTIAL.key, {}).get("peers", {})
    if not peers:
        return None
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 5.5), sharey=True)
    for axis, family in zip(axes, BASELINES, strict=True):
        for peer in _shown(family):
            if peer in peers:
                curve = [microseconds / 1000 for microseconds in peers[peer]["curve"]]
                axis.plot([1 / (1 - share) for share in CURVE], curve, label=peer, **_style(peer))
        axis.set(xscale="log", yscale="log", xlabel="percent of calls, one at a time", title=family)
        axis.set_xticks([1 / (1 - percent / 100) for percent in PERCENTS], [f"{percent:g}" for percent in PERCENTS])
        axis.grid(alpha=0.25)
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("milliseconds or less")
    return _finished(figure, found)


def _ratios(found: dict[str, Any]) -> Any:
    """Calls with 64 in flight, over each family's hand-written baseline."""
    peers = found["work"].get(work.CALLS[1].key, {}).get("peers", {})
    shown = [[peer for peer in _shown(family) if peers.get(peer, {}).get("ratio")] for family in BASELINES]
    if not all(shown):
        return None
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 3.5))
    for axis, family, names in zip(axes, BASELINES, shown, strict=True):
        names = sorted(names, key=lambda name: peers[name]["ratio"]["median"])
        ratios = [peers[name]["ratio"] for name in names]
        middle = [ratio["median"] for ratio in ratios]
        errors = [
            [ratio["median"] - ratio["low"] for ratio in ratios],
            [ratio["high"] - ratio["median"] for ratio in ratios],
        ]
        colors = [_style(name)["color"] if name.startswith("rpclib") else "#b0b0b0" for name in names]
        bars = axis.barh(names, middle, xerr=errors, color=colors, ecolor="#555555", capsize=2)
        axis.bar_label(bars, [f"{ratio:.2f}" for ratio in middle], padding=6, fontsize=8)
        axis.axvline(1, color="#333333", lw=0.8)
        axis.set_title(f"calls a second over {BASELINES[family]} by hand, 64 in flight", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    return _finished(figure, found)


def _finished(figure: Any, found: dict[str, Any]) -> Any:
    machine, plan = found["machine"], found["plan"]
    figure.text(
        0.5,
        -0.02,
        f"{machine['cores']} cores ({machine['cpu']}) shared by client, server and broker; {machine['python']}; "
        f"medians, lowest and highest of {plan['rounds']} interleaved rounds",
        ha="center",
        fontsize=8,
        color="#555555",
    )
    figure.tight_layout()
    return figure


def _shown(family: str) -> list[str]:
    return [peer.name for peer in PEERS if peer.family == family and not peer.name.endswith("again")]


def _style(peer: str) -> dict[str, Any]:
    if peer in OTHERS:
        return {"color": OTHERS[peer], "lw": 1.2}
    color = next(color for driver, color in OURS.items() if driver in peer)
    dashes = {"sync": "--", "plain": ":"}
    return {"color": color, "lw": 2.4, "ls": next((dash for word, dash in dashes.items() if word in peer), "-")}
