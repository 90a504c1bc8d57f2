"""Failures of the machine, not of a model or a candidate, and retries of calls.

Examples are a full disk, missing memory, and temporarily unavailable databases and stores.
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

from compress.core.credentials import hide_passwords
from compress.core.errors import RunFailed, to_one_line

SPACE, MEMORY = "space", "memory"
_REMEDY = {SPACE: "Fix that", MEMORY: "Free memory"}

_SPACE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EROFS,
}  # fmt: skip
# messages of libraries with their own error types (HDF5, TensorFlow, SQLite, threads)
_SPACE_PATTERN = re.compile(
    r"no space left on device|disk quota exceeded|too many open files|input/output error|"
    r"database or disk is full|can't start new thread",
    re.IGNORECASE,
)
_MEMORY_PATTERN = re.compile(r"cannot allocate memory|bad_alloc|out of memory", re.IGNORECASE)
RETRY_SECONDS = 300.0
"""Time for which a call is retried, in seconds."""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
"""Seconds between two tries. The wait doubles up to the longest, and is randomized between half and
all of it, so that workers do not retry at the same time."""
_LOG = logging.getLogger("paretune")
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """Failure of the machine.

    Attributes:
        kind: `SPACE` (disk, quota, files, threads): every trial fails until it is fixed. `MEMORY`:
            fewer parallel trials or a smaller candidate may help.
        text: The error on one line.
    """

    kind: str
    text: str


def find_fault(error: BaseException) -> Fault | None:
    """Return the machine's fault behind an error, or None if the candidate caused it.

    Args:
        error: The error; its causes are searched too.
    """
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        kind = _classify_error(link)
        if kind:
            return Fault(kind, hide_passwords(to_one_line(f"{type(link).__name__}: {link}", 300)))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return None


def explain_fault(fault: Fault, location: str = "") -> RunFailed:
    """Build the error that ends a run because of a fault of the machine.

    Args:
        fault: The fault.
        location: Where it occurred: " (0007)" for a candidate.
    """
    return RunFailed(
        f"The machine failed{location}: {fault.text}. {_REMEDY[fault.kind]}, then give the same "
        "command: what was in progress is tried again."
    )


@contextmanager
def convert_faults() -> Iterator[None]:
    """Convert errors of the machine to an error that says how to resume.

    Raises:
        RunFailed: In place of an `OSError` or `MemoryError` caused by the machine.
    """
    try:
        yield
    except (OSError, MemoryError) as error:
        fault = find_fault(error)
        if fault is None:
            raise
        raise explain_fault(fault) from None


class ServiceTimeout(RunFailed):
    """A database or a store did not respond within the time limit."""


def retry_call(
    call: Callable[[], T],
    service: str,
    is_transient: Callable[[BaseException], bool],
    seconds: float = RETRY_SECONDS,
) -> T:
    """Return the result of a call, retried while its error is transient.

    Args:
        call: The function to call.
        service: The service that it uses, for messages ("the storage").
        is_transient: Function from an error to whether it may disappear soon.
        seconds: Time limit of the retries.

    Raises:
        ServiceTimeout: The call did not succeed in time.
        Exception: The error of the call, if it is not transient.
    """
    deadline, wait = time.monotonic() + seconds, _FIRST_WAIT
    while True:
        try:
            return call()
        except Exception as error:  # drivers have their own types, which are not imported here
            if not is_transient(error):
                raise
            root_error = error
            while isinstance(root_error.__cause__, Exception):
                root_error = root_error.__cause__
            reason = hide_passwords(to_one_line(f"{type(root_error).__name__}: {root_error}", 200))
            if time.monotonic() > deadline:
                raise ServiceTimeout(
                    f"{service[0].upper()}{service[1:]} must answer. Received: nothing for "
                    f"{seconds:g} s ({reason}). When it runs again, give the same command: the run "
                    "continues."
                ) from error
            if wait == _FIRST_WAIT:
                _LOG.info(
                    "%s does not answer (%s); trying again for %g s", service, reason, seconds
                )
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, _LONGEST_WAIT)


def _classify_error(error: BaseException) -> str:
    """Return `MEMORY` or `SPACE` for an error caused by the machine, "" for any other error."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return MEMORY
    number = error.errno if isinstance(error, OSError) else None
    if number in _SPACE_ERRORS:
        return SPACE
    if number == errno.ENOMEM:
        return MEMORY
    text = str(error)
    if _SPACE_PATTERN.search(text):
        return SPACE
    return MEMORY if _MEMORY_PATTERN.search(text) else ""
