"""Quality of an exported file: the artefact that ships is what is judged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.measure.runtimes import Session, session_for

REPORT_EVERY = 250
MOST, LARGE = 4, 32_000_000
"""Sessions of one file, and the bytes from which on there is one alone."""


def run_all(
    session: Session,
    x: npt.NDArray[Any],
    on_progress: Callable[[float], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Runs every example through a session of batch size 1, with one input and one output.

    Args:
        session: From `Runtime.prepare`.
        x: Model inputs (n, ...), as `Dataset.inputs` gives them.
        on_progress: Called now and then with the share that is done.

    Returns:
        Outputs, (n, ...).
    """
    (made,) = outputs_of(session, [x], on_progress)
    return made


def sessions_for(path: Path, threads: int) -> tuple[Session, ...]:
    """Prepares a file as often as there are threads to run it on, up to `MOST`.

    Args:
        path: Of a kind that some runtime runs. A large file is prepared once: each session holds
            its weights.
        threads: That may be busy.

    Raises:
        InputError: No runtime can run it.
        MissingDependency: The runtime is not installed.
    """
    many = 1 if path.stat().st_size > LARGE else min(MOST, threads)
    return tuple(session_for(path) for _ in range(many))


def outputs_of(
    session: Session | Sequence[Session],
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Runs every example through sessions of batch size 1.

    Args:
        session: From `Runtime.prepare`; several of one file share the examples, each in a thread
            of its own. What comes out is the same.
        inputs: Model inputs, an array (n, ...) each, in the model's order.
        on_progress: Called now and then with the share that is done.

    Returns:
        An array (n, ...) an output, in the model's order.
    """
    sessions = tuple(session) if isinstance(session, Sequence) else (session,)
    first, *others = sessions
    parts = np.array_split(np.arange(len(inputs[0])), len(sessions))
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        asked = [
            pool.submit(_answers, other, inputs, part, stop)
            for other, part in zip(others, parts[1:], strict=True)
        ]
        try:
            told = on_progress, max(1, REPORT_EVERY // len(sessions))
            found = [_answers(first, inputs, parts[0], stop, *told)]
            found += [future.result() for future in asked]
        finally:
            stop.set()  # Ctrl-C or an error: the others end too
    return [np.concatenate(made) for made in zip(*found, strict=True)]


def _answers(
    session: Session,
    inputs: Sequence[npt.NDArray[Any]],
    rows: npt.NDArray[np.int64],
    stop: threading.Event,
    on_progress: Callable[[float], None] | None = None,
    every: int = REPORT_EVERY,
) -> list[npt.NDArray[np.float32]]:
    """Returns what a session answers to some rows, an array (rows, ...) an output."""
    found = [np.empty((0, *info.shape[1:]), np.float32) for info in session.outputs]
    for place, row in enumerate(rows):
        if stop.is_set():
            break
        session.set_inputs([values[row : row + 1] for values in inputs])
        session.invoke()
        results = session.results()
        if place == 0:
            found = [np.empty((len(rows), *result.shape[1:]), np.float32) for result in results]
        for made, result in zip(found, results, strict=True):
            made[place] = result[0]
        if on_progress and (place + 1) % every == 0:
            on_progress((place + 1) / len(rows))
    return found
