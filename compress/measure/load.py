"""How busy the machine is with other work while we measure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PROC = Path("/proc")
_IDLE_FIELDS = (3, 4)  # idle, iowait; see proc_stat(5)


class LoadMeter:
    """Counts the cores that other processes keep busy between its making and `others`.

    The load average would count our own workers for minutes after they ended.
    """

    def __init__(self, children: Callable[[], Sequence[int]] = lambda: ()) -> None:
        """Starts to count.

        Args:
            children: Returns the ids of processes that work for us.
        """
        self._children = children
        self._busy, self._total = _read()
        self._own = self._own_seconds()

    def _own_seconds(self) -> float:
        return time.process_time() + sum(_seconds_of(number) for number in self._children())

    def others(self) -> float | None:
        """Returns the mean number of cores busy with others; None where it is unknown."""
        busy, total = _read()
        ticks = total - self._total
        if ticks <= 0:
            return None
        rate = os.sysconf("SC_CLK_TCK")
        passed = ticks / rate / (os.cpu_count() or 1)  # the ticks are those of all cores
        others = (busy - self._busy) / rate - (self._own_seconds() - self._own)
        return max(0.0, others) / passed


def _seconds_of(process: int) -> float:
    """Returns the CPU time of a process; 0 where it is unknown."""
    try:
        text = (_PROC / str(process) / "stat").read_text("ascii")
    except OSError:
        return 0.0
    # behind the name in brackets: utime and stime are fields 14 and 15 of proc_pid_stat(5)
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read() -> tuple[int, int]:
    """Returns busy and total ticks of all cores since boot; zeros where they are unknown."""
    stat = _PROC / "stat"
    if not stat.exists():
        return 0, 0
    fields = [int(field) for field in stat.read_text("ascii").split("\n", 1)[0].split()[1:9]]
    total = sum(fields)
    return total - sum(fields[index] for index in _IDLE_FIELDS), total
