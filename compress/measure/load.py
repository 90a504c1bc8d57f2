"""How busy the machine is with other work while we measure."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE_FIELDS = (3, 4)  # idle, iowait; see proc_stat(5)


class LoadMeter:
    """Counts the cores that other processes keep busy between its making and `others`.

    The load average would count our own workers for minutes after they ended.
    """

    def __init__(self) -> None:
        self._busy, self._total = _read()
        self._own = time.process_time()

    def others(self) -> float | None:
        """Returns the mean number of cores busy with others; None where it is unknown."""
        busy, total = _read()
        ticks = total - self._total
        if ticks <= 0:
            return None
        rate = os.sysconf("SC_CLK_TCK")
        passed = ticks / rate / (os.cpu_count() or 1)  # the ticks are those of all cores
        others = (busy - self._busy) / rate - (time.process_time() - self._own)
        return max(0.0, others) / passed


def _read() -> tuple[int, int]:
    """Returns busy and total ticks of all cores since boot; zeros where they are unknown."""
    if not _STAT.exists():
        return 0, 0
    fields = [int(field) for field in _STAT.read_text("ascii").split("\n", 1)[0].split()[1:9]]
    total = sum(fields)
    return total - sum(fields[index] for index in _IDLE_FIELDS), total
