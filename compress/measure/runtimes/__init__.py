"""Runtimes, one file each behind the protocol in `_base`; `compress.core.plugins` names them."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import InputError
from compress.core.plugins import RUNTIMES
from compress.measure.runtimes._base import Runtime, Session, TensorInfo

__all__ = [
    "RUNTIMES",
    "Runtime",
    "Session",
    "TensorInfo",
    "runtime_for",
    "runtimes",
    "session_for",
    "suffixes",
]


def runtimes() -> tuple[Runtime, ...]:
    """Returns all runtimes, those that are not installed too."""
    return tuple(RUNTIMES[name] for name in RUNTIMES)


def suffixes() -> tuple[str, ...]:
    """Returns the suffixes of all files that some runtime runs."""
    return tuple(dict.fromkeys(suffix for runtime in runtimes() for suffix in runtime.suffixes))


def runtime_for(path: Path) -> Runtime:
    """Returns the first runtime that runs files of this suffix.

    Raises:
        InputError: None does.
    """
    for runtime in runtimes():
        if path.suffix in runtime.suffixes:
            return runtime
    raise InputError(f"A model file must end in {', '.join(suffixes())}. Received: '{path}'.")


def session_for(path: Path, threads: int = 1) -> Session:
    """Prepares a file with the first runtime that runs files of its suffix.

    Raises:
        InputError: There is none, or it cannot run the file.
        MissingDependency: It is not installed.
    """
    return runtime_for(path).prepare(path, threads)
