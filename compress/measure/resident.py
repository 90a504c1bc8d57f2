"""The memory that a process needs for a file: what is resident above one that runs nothing."""

from __future__ import annotations

import importlib
from contextlib import closing
from pathlib import Path

import numpy as np

from compress.core import linux
from compress.core.errors import InputError, MissingDependency, ParetuneError, one_line
from compress.core.processes import ProcessEnded, ProcessOverdue, Server, receive, send, serving
from compress.measure.runtimes import RUNTIMES
from compress.run.directory import LOG

RUNS = 5
SECONDS = 300.0


def resident_bytes(path: str | Path, runtime: str = "litert", threads: int = 1) -> int:
    """Returns the bytes that become resident when a process loads a file and runs it.

    Measured in a process of its own, at batch 1, with the runtime as it ships (its delegates
    included): after some runs less before the file was loaded, when the runtime was imported and
    nothing else. Weights, their packed copies, the arena and what the runtime sets up once are in
    it.

    Args:
        path: A file that the runtime runs.
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        threads: CPU threads.

    Raises:
        InputError: The file cannot be run.
        MissingDependency: The runtime is not installed.

    Example:
        >>> file = export(model, folder / "m.tflite")[0].path
        >>> resident_bytes(file) > 0
        True
    """
    with closing(Server.started("compress.measure.resident")) as server:
        try:
            found = server.ask(str(path), runtime, threads, seconds=SECONDS)
        except (ProcessEnded, ProcessOverdue) as error:
            raise InputError(f"'{path}' must run in a process of its own ({error}).") from None
    if isinstance(found, str):
        raise InputError(found)
    return int(found)


def known_resident(path: str | Path, runtime: str = "litert", threads: int = 1) -> int | None:
    """Returns what `resident_bytes` does; None where it cannot be had (the log says why)."""
    try:
        return resident_bytes(path, runtime, threads)
    except (InputError, MissingDependency) as error:
        LOG.info("note: resident memory: %s", error)
        return None


def _measured(path: str, runtime: str, threads: int) -> int:
    own = RUNTIMES[runtime]
    importlib.import_module(own.library)  # the library's own memory is not the file's
    before = linux.resident_bytes()
    session = own.prepare(Path(path), threads)
    session.set_inputs([np.zeros(info.shape) for info in session.inputs])
    for _ in range(RUNS):
        session.invoke()
    return max(0, linux.resident_bytes() - before)


def main() -> None:
    """Answers one question; see `resident_bytes`."""
    questions, answers = serving()
    path, runtime, threads = receive(questions, SECONDS)
    try:
        send(answers, _measured(path, runtime, threads))
    except (ParetuneError, ImportError, RuntimeError, ValueError) as error:
        send(answers, one_line(str(error)))


if __name__ == "__main__":
    main()
