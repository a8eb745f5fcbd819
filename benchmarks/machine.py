"""The machine a run was made on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def describe() -> dict[str, str | int | float]:
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20), 1),
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"'),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}, {_build()}",
        "load_before": os.getloadavg()[0],
    }


def _build() -> str:
    return "the distribution's" if sys.base_prefix == "/usr" else "built apart"


def _field(file: str, name: str, separator: str = ":") -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return "?"
