"""The one place where tests look at a clock: how long they wait for what will come.

No test depends on how fast the machine is: what is slow is waited for, and only what never comes
is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 900.0
"""Seconds after which what a test waits for is taken to hang."""


def wait_for(condition: Callable[[], object], what: str = "what the test waits for") -> None:
    """Returns when `condition()` is true; asked fifty times a second."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)
