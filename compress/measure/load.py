"""How busy the machine is with other work while we measure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from compress.core import linux


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
        self._busy, self._total = linux.core_seconds()
        self._own = self._own_seconds()

    def _own_seconds(self) -> float:
        return time.process_time() + sum(map(linux.process_seconds, self._children()))

    def others(self) -> float | None:
        """Returns the mean number of cores busy with others; None where it is unknown."""
        busy, total = linux.core_seconds()
        passed = (total - self._total) / (os.cpu_count() or 1)  # the seconds are of all cores
        if passed <= 0:
            return None
        others = busy - self._busy - (self._own_seconds() - self._own)
        return max(0.0, others) / passed
