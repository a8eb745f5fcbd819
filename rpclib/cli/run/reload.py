"""Noticing that a source file changed, by its modification time."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path

INTERVAL = 0.5
"""Seconds between two looks."""


class Watch:
    """Watches the ``.py`` files of the imported modules, but not those of Python, installed packages and rpclib."""

    def __init__(self) -> None:
        folders = sys.prefix, sys.base_prefix, Path(__file__).parents[1]
        self._outside = tuple(f"{Path(folder).resolve()}/" for folder in folders)
        self._seen: dict[str, int] = {}

    def begin(self) -> None:
        """What is imported by now counts as unchanged."""
        self._look()

    async def changed(self) -> str:
        """Return the name of a file when it has changed since it was first seen here."""
        while (name := self._look()) is None:
            await asyncio.sleep(INTERVAL)
        return name

    def add_from(self, error: BaseException) -> bool:
        """Watch the files that took part in an error too: what failed to import is not among the modules.

        False: there is none to watch.
        """
        cause = error.__cause__
        names = [frame.filename for frame in traceback.extract_tb(cause.__traceback__)] if cause else []
        if isinstance(cause, SyntaxError) and cause.filename:
            names.append(cause.filename)
        self._look(names)
        return bool(self._seen)

    def _look(self, more: list[str] | None = None) -> str | None:
        modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        for name in (*modules, *(more or ())):
            if name and name not in self._seen and self._is_ours(name):
                self._seen[name] = _mtime(name)
        return next((name for name, mtime in self._seen.items() if _mtime(name) != mtime), None)

    def _is_ours(self, name: str) -> bool:
        return name.endswith(".py") and not str(Path(name).resolve()).startswith(self._outside)


def _mtime(name: str) -> int:
    try:
        return Path(name).stat().st_mtime_ns
    except OSError:
        return 0
