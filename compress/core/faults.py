"""Failures of the machine, not of a model or a candidate: no space, no files, no memory left."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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
    """Returns what of the machine an error comes from; None: of the candidate.

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
    """Turns errors of the machine into one that says how to go on.

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
