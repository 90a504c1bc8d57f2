"""A process of ours ends with the one that started it, from its first line on.

Run as a file, not as a module: `python -P lifeline.py PARENT METHOD MODULE WORDS...`. A module's
packages would be imported first, which takes seconds; a parent that is killed meanwhile would
leave a process behind that nobody knows of. So this file imports nothing but what it needs,
ties the process to its parent, and runs the module after that.
"""

from __future__ import annotations

import os
import sys

KERNEL, WATCH = "kernel", "watch"
"""Methods: the kernel kills the process, or a thread of it checks who its parent is (an orphan
gets another)."""
WATCH_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, how: str) -> None:
    """End this process when the one that started it does; at once where it has already.

    Args:
        parent: The id of the process that started this one.
        how: `KERNEL` or `WATCH`.
    """
    if how == KERNEL:
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        import threading

        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    # it may have ended before
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    import time

    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def main() -> None:
    """Tie this process to its parent, then run a module as `python -m` does."""
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
