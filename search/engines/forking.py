"""A worker's jobs run in forks of it: TensorFlow is imported once, memory comes back.

TensorFlow keeps tens of megabytes of every model that it has trained until its process ends.
A fork of a process that has imported it, but not yet used it, starts in a fraction of a second
and takes what it leaked with it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from compress.core.processes import run_in_fork

RENEW = 75
"""Exit code of a fork that wants to be followed by a fresh one."""
EARLY_SECONDS, MAX_EARLY = 1.0, 3
"""So many forks in a row that die within this time are no accident."""


def can_fork() -> bool:
    """Tells whether forks of this process may use TensorFlow: it has not begun to itself."""
    from tensorflow.python.eager import context  # no public way to ask without starting it

    return not getattr(context.context(), "_initialized", True)


def serve(work: Callable[[], int], on_death: Callable[[str], None]) -> int:
    """Runs `work` in one fork after another until one ends for good.

    Args:
        work: Does jobs; returns an exit code, `RENEW` for a fresh fork.
        on_death: Called with "signal SIGKILL" or "exit code 1" when a fork did not end by
            itself; a fresh one follows.

    Returns:
        0: a fork was told to quit; 1: forks die as soon as they begin, and no more are made.
    """
    early = 0
    while True:
        began = time.monotonic()
        code = run_in_fork(work)
        if code == 0:
            return 0
        if code == RENEW:
            continue
        early = early + 1 if time.monotonic() - began < EARLY_SECONDS else 0
        if early == MAX_EARLY:
            return 1
        on_death(f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
