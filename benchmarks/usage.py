"""What processes use: CPU seconds, memory, system calls; and what the rest of the machine did meanwhile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BUSY = (0, 1, 2, 5, 6)
"""Columns of /proc/stat: user, nice, system, irq, softirq."""
_STEAL = 7


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU seconds that these processes have used so far, all their threads included."""
    total = 0.0
    for pid in pids:
        try:
            # Linux' clock of another process: nanoseconds, where /proc/PID/stat has hundredths.
            total += time.clock_gettime(~pid << 3 | 2)
        except OSError:
            continue
    return total


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def pids_of_session(session: int) -> list[int]:
    """The processes of a session (setsid), its leader included."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


class Machine:
    """The whole machine's CPU, to tell how much of it somebody else used."""

    def __init__(self) -> None:
        self._busy, self._stolen, self._began = *self._read(), time.monotonic()

    def foreign(self, own: float) -> float:
        """The share of the machine that others used since this was made, ``own`` CPU seconds being ours."""
        busy, stolen = self._read()
        seconds = time.monotonic() - self._began
        others = busy - self._busy - own + stolen - self._stolen
        return max(0.0, others / seconds / (os.cpu_count() or 1)) if seconds else 0.0

    def _read(self) -> tuple[float, float]:
        with open("/proc/stat") as file:
            columns = [int(word) for word in file.readline().split()[1:]]
        return sum(columns[i] for i in _BUSY) / _TICK, columns[_STEAL] / _TICK


class Trace:
    """Counts the system calls of a process and its threads, with strace, from its making until `stop`."""

    def __init__(self, pid: int) -> None:
        command = ["strace", "-f", "-c", "-S", "calls", "-U", "calls,name", "-p", str(pid)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stderr is not None
        self._process.stderr.readline()  # "strace: Process 123 attached"

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        summary = self._process.communicate(timeout=10)[1]
        total = re.search(r"^\s*(\d+) total$", summary, re.MULTILINE)
        return int(total[1]) if total else 0
