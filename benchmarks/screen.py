"""The live view of a run: how far it is, and the figures so far of what is being measured."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks import report
from benchmarks.run import Results
from benchmarks.work import Work


class Screen:
    """A table that fills while samples come in. Finished tables stay. Without a terminal only those are printed."""

    def __init__(self, console: Console, samples: int) -> None:
        """``samples``: how many there will be at most."""
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=samples)
        self._live = Live(self._progress, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def show(self, work: Work, results: Results, done: int) -> None:
        """One more sample of this work is there."""
        self._progress.advance(self._task)
        self._live.update(Group(report.table(results, work), self._progress))

    def finish(self, work: Work, results: Results, unmeasured: int) -> None:
        """This work is done; ``unmeasured`` samples of it were never taken."""
        self._progress.advance(self._task, unmeasured)
        self._live.update(self._progress)
        if work.key not in results.skipped:
            self.console.print(report.table(results, work))
