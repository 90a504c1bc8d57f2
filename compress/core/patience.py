"""Calls of databases and stores that are tried again: what is away for a moment loses nothing."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from compress.core import credentials
from compress.core.errors import RunFailed, one_line

PATIENCE = 300.0
"""Seconds for which a call is repeated."""
_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between two tries: doubled from the first to the longest, each drawn from half of it
up, so that workers do not come back all at once."""
_LOG = logging.getLogger("paretune")
T = TypeVar("T")


class NoAnswer(RunFailed):
    """A database or a store did not answer for as long as we wait."""


def patiently(
    call: Callable[[], T],
    what: str,
    passing: Callable[[BaseException], bool],
    seconds: float = PATIENCE,
) -> T:
    """Returns what a call returns, tried again while its error is a passing one.

    Args:
        call: What is tried.
        what: What it asks, for messages ("the storage").
        passing: Tells whether an error may be gone in a moment.
        seconds: For how long.

    Raises:
        NoAnswer: It was not in time.
        Exception: What the call raised, where that lasts.
    """
    end, wait = time.monotonic() + seconds, _FIRST
    while True:
        try:
            return call()
        except Exception as error:  # of drivers that we do not import
            if not passing(error):
                raise
            first = error
            while isinstance(first.__cause__, Exception):
                first = first.__cause__
            reason = credentials.hidden(one_line(f"{type(first).__name__}: {first}", 200))
            if time.monotonic() > end:
                raise NoAnswer(
                    f"{what[0].upper()}{what[1:]} must answer. Received: nothing for {seconds:g} s "
                    f"({reason}). When it runs again, give the same command: the run goes on."
                ) from error
            if wait == _FIRST:
                _LOG.info("%s does not answer (%s); trying again for %g s", what, reason, seconds)
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, _LONGEST)
