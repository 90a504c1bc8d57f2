"""What the system below us offers: locks, processes, memory, load; the one place that asks.

Linux's own ways are in `linux` and `forks`; `portable` does the same on any system, with
filelock and psutil and with fresh processes in place of forks. Nothing else of ours asks which
system it runs on.

Example:
    >>> host().cores() >= 1
    True
"""

from __future__ import annotations

import os
import sys

from compress.core.errors import InputError
from compress.core.platform._base import Host, Lock

CHOICE = "PARETUNE_PLATFORM"
"""Environment variable that forces one: "linux" or "portable". What we start inherits it."""
NAMES = ("linux", "portable")

__all__ = ["CHOICE", "NAMES", "Host", "Lock", "host"]


def host() -> Host:
    """Returns this system's ways, or those that `CHOICE` names.

    Raises:
        InputError: The variable names none of them, or Linux's elsewhere.
    """
    here = NAMES if sys.platform == "linux" else NAMES[1:]
    name = os.environ.get(CHOICE) or here[0]
    if name not in here:
        raise InputError(
            f"{CHOICE} must be one of {', '.join(here)} here. Received: {name}. Unset it."
        )
    if name == "linux":
        from compress.core.platform import linux

        return linux
    from compress.core.platform import portable

    return portable
