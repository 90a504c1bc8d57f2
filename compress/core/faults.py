"""Failures of the machine, not of a model or a candidate; and calls that are tried again.

No space, no files, no memory left; databases and stores that are away for a moment.
"""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from compress.core.credentials import hidden
from compress.core.errors import RunFailed, one_line

SPACE, MEMORY = "space", "memory"
_REMEDY = {SPACE: "Fix that", MEMORY: "Free memory"}

_SPACE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS,
}  # fmt: skip
# of libraries that raise kinds of their own (HDF5, TensorFlow, SQLite, threads)
_SPACE_WORDS = re.compile(
    r"no space left on device|disk quota exceeded|too many open files|input/output error|"
    r"database or disk is full|can't start new thread",
    re.IGNORECASE,
)
_MEMORY_WORDS = re.compile(r"cannot allocate memory|bad_alloc|out of memory", re.IGNORECASE)
PATIENCE = 300.0
"""Seconds for which a call is repeated."""
_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between two tries: doubled from the first to the longest, each drawn from half of it
up, so that workers do not come back all at once."""
_LOG = logging.getLogger("paretune")
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What the machine lacks.

    Attributes:
        kind: `SPACE` (disk, quota, files, threads): every trial fails until someone mends it.
            `MEMORY`: one trial less at a time may help, and so may a smaller candidate.
        text: The error, as one line.
    """

    kind: str
    text: str


def fault_of(error: BaseException) -> Fault | None:
    """Return the machine's fault behind an error; None: the candidate's own error.

    Args:
        error: What it was raised from counts too.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        kind = _kind(link)
        if kind:
            return Fault(kind, hidden(one_line(f"{type(link).__name__}: {link}", 300)))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def explain_fault(fault: Fault, place: str = "") -> RunFailed:
    """Build the error that ends a run for what the machine lacks.

    Args:
        fault: What it lacks.
        place: Where that was met: " (0007)" of a candidate.
    """
    return RunFailed(
        f"The machine failed{place}: {fault.text}. {_REMEDY[fault.kind]}, then give the same "
        "command: what was in progress is tried again."
    )


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the machine into one that says how to go on.

    Raises:
        RunFailed: In place of an `OSError` or `MemoryError` of the machine's.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        fault = fault_of(error)
        if fault is None:
            raise
        raise explain_fault(fault) from None


class NoAnswer(RunFailed):
    """A database or a store did not answer for as long as we wait."""


def patiently(
    call: Callable[[], T],
    what: str,
    passing: Callable[[BaseException], bool],
    seconds: float = PATIENCE,
) -> T:
    """Return what a call returns, tried again while its error is a passing one.

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
            reason = hidden(one_line(f"{type(first).__name__}: {first}", 200))
            if time.monotonic() > end:
                raise NoAnswer(
                    f"{what[0].upper()}{what[1:]} must answer. Received: nothing for {seconds:g} s "
                    f"({reason}). When it runs again, give the same command: the run goes on."
                ) from error
            if wait == _FIRST:
                _LOG.info("%s does not answer (%s); trying again for %g s", what, reason, seconds)
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, _LONGEST)


def _kind(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return MEMORY
    number = error.errno if isinstance(error, OSError) else None
    if number in _SPACE_ERRORS:
        return SPACE
    if number == errno.ENOMEM:
        return MEMORY
    text = str(error)
    if _SPACE_WORDS.search(text):
        return SPACE
    return MEMORY if _MEMORY_WORDS.search(text) else ""
