"""Medians, spread and ratios of samples.

A ratio is taken within a round, where both peers met the same machine, and the median of the rounds' ratios is
reported with the lowest and the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.process import Sample
from benchmarks.work import Work

OPERATIONS = 10_000
"""CPU seconds are given for that many."""
CURVE = [*(index / 100 for index in range(1, 100)), 0.995, 0.999]
"""Quantiles that make up a latency distribution."""


@dataclass(frozen=True)
class Figure:
    """A median with the lowest and highest it came from."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance from lowest to highest, as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def figure(values: Sequence[float]) -> Figure:
    return Figure(median(values), min(values), max(values))


def value_of(work: Work, sample: Sample) -> float:
    """The one number of a sample: a rate, a median latency in microseconds, bytes, or system calls."""
    if sample.each is not None:
        return sample.each
    return median(sample.latencies) if work.is_latency else sample.rate


def ratios(values: dict[int, float], base: dict[int, float]) -> Figure | None:
    """Of values by round; None when the two share no round."""
    both = [values[number] / base[number] for number in values if base.get(number)]
    return figure(both) if both else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def curve(latencies: Sequence[float]) -> list[float]:
    """The latency at each quantile of `CURVE`."""
    ordered = sorted(latencies)
    return [quantile(ordered, share) for share in CURVE]


def cpu_per_operations(samples: Sequence[Sample]) -> dict[str, float]:
    """CPU seconds of client, server and broker for `OPERATIONS` operations; medians over the samples."""
    sides = samples[0].cpu if samples else {}
    return {side: median(sample.cpu[side] / sample.n for sample in samples) * OPERATIONS for side in sides}
