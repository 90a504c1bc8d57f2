"""Child processes that end with their parent, from their first line on.

Run as a file, not as a module: `python -P parent_watch.py PARENT METHOD MODULE WORDS...`. As a
module it would first import its packages, which takes seconds; if the parent were killed meanwhile,
an orphaned process would remain. Therefore this file has minimal imports, ties the process to its
parent, and runs the module after that.
"""

from __future__ import annotations

import os
import sys

KERNEL, WATCH = "kernel", "watch"
"""Methods: the kernel kills the process, or a thread of it checks its parent's id, which changes
when the parent ends."""
WATCH_SECONDS = 0.5  # between two checks
_PR_SET_PDEATHSIG = 1


def exit_with_parent(parent: int, method: str) -> None:
    """End this process as soon as its parent ends, or immediately if it has already ended.

    Args:
        parent: Process id of the parent.
        method: `KERNEL` or `WATCH`.
    """
    if method == KERNEL:
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        import threading

        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    # the parent may have ended before
    if os.getppid() != parent:
        os._exit(1)


def _watch_parent(parent: int) -> None:
    import time

    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def main() -> None:
    """Tie this process to its parent, then run a module like `python -m`."""
    parent, method, module = sys.argv[1:4]
    exit_with_parent(int(parent), method)
    import runpy
    import warnings

    del sys.argv[:3]
    # the module's package may have imported it already, which is harmless
    warnings.filterwarnings("ignore", r".*found in sys\.modules", RuntimeWarning, "runpy")
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
