"""A process of ours ends with the one that started it, from its first line on.

Run as a file, not as a module: `python -P lifeline.py PARENT WAY MODULE WORDS...`. A module's
packages would be imported first, which takes seconds; a parent that is killed meanwhile would
leave a process behind that nobody knows of. So this file imports nothing but what it needs,
ties the process to its parent, and runs the module after that.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # the module `typing` takes longer than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

KERNEL, WATCH, ASK = "kernel", "watch", "ask"
"""Ways: the kernel kills the process (Linux), a thread of it looks who its parent is (where an
orphan gets another), or asks whether its parent still runs as well (Windows keeps the number)."""
WATCH_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, how: str) -> None:
    """Ends this process when the one that started it does; at once where it has already.

    Args:
        parent: The id of the process that started this one.
        how: `KERNEL`, `WATCH` or `ASK`.
    """
    if how == KERNEL:
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        import threading

        runs = _asking(parent) if how == ASK else None
        threading.Thread(target=_watch, args=(parent, runs), daemon=True).start()
    # it may have ended before
    if os.getppid() != parent:
        os._exit(1)


def _asking(parent: int) -> Callable[[], bool]:
    """Returns what tells whether a process runs; another with its number does not count."""
    import psutil

    try:
        runs: Callable[[], bool] = psutil.Process(parent).is_running
    except psutil.NoSuchProcess:
        os._exit(1)
    return runs


def _watch(parent: int, runs: Callable[[], bool] | None) -> None:
    import time

    while os.getppid() == parent and (runs is None or runs()):
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def main() -> None:
    """Ties this process to its parent, then runs a module as `python -m` does."""
    parent, how, module = sys.argv[1:4]
    end_with_parent(int(parent), how)
    import runpy
    import warnings

    del sys.argv[:3]
    # the module's package may have imported it already; it is run all the same
    warnings.filterwarnings("ignore", r".*found in sys\.modules", RuntimeWarning, "runpy")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
