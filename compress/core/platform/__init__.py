"""What the system below us offers: locks, processes, memory, load; the one place that asks.

Linux's own ways are in `linux` and `forks`; `portable` does the same on any system, with
filelock and psutil and with fresh processes in place of forks. Nothing else of ours asks which
system it runs on.

Example:
    >>> host().cores() >= 1
    True
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import cast

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
    linux = sys.platform == "linux"
    name = os.environ.get(CHOICE) or ("linux" if linux else "portable")
    if name not in NAMES or (name == "linux" and not linux):
        choices = ", ".join(NAMES if linux else NAMES[1:])
        raise InputError(f"{CHOICE} must be one of {choices} here. Received: {name}. Unset it.")
    return cast("Host", importlib.import_module(f"compress.core.platform.{name}"))
