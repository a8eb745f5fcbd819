"""Compares a run with goals.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import stats, work
from benchmarks.run import Results
from benchmarks.stats import Figure

FILE = Path(__file__).with_suffix(".toml")
_WORK = {item.key: item for item in work.FULL}


@dataclass(frozen=True)
class Goal:
    title: str
    peer: str
    work: str
    against: str | None = None
    beside: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None

    @property
    def bound(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"

    def figure(self, results: Results) -> Figure | None:
        """What the run says; None where it did not measure it."""
        values = values_of(results, self.work, self.peer)
        if self.against is None:
            return stats.figure(list(values.values())) if values else None
        return stats.ratios(values, values_of(results, self.beside or self.work, self.against))

    def verdict(self, value: float) -> str:
        if self.stretch is not None and self._holds(value, self.stretch):
            return "stretch"
        bound = self.at_least if self.at_least is not None else self.at_most
        assert bound is not None
        return "reached" if self._holds(value, bound) else "short"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least is not None else value <= bound


def read() -> list[Goal]:
    entries: list[dict[str, Any]] = tomllib.loads(FILE.read_text())["goal"]
    return [Goal(**entry) for entry in entries]


def values_of(results: Results, key: str, peer: str) -> dict[int, float]:
    """The value of each round that a peer did a piece of work in."""
    samples = results.samples.get(key, {}).get(peer, {})
    return {number: stats.value_of(_WORK[key], sample) for number, sample in samples.items()}
