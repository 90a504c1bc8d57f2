"""Quality of an exported file: the artefact that ships is what is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.measure.runtimes import Session

REPORT_EVERY = 250


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


def outputs_of(
    session: Session,
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Runs every example through a session of batch size 1.

    Args:
        session: From `Runtime.prepare`.
        inputs: Model inputs, an array (n, ...) each, in the model's order.
        on_progress: Called now and then with the share that is done.

    Returns:
        An array (n, ...) an output, in the model's order.
    """
    found: list[list[npt.NDArray[np.float32]]] = [[] for _ in session.outputs]
    total = len(inputs[0])
    for index in range(total):
        session.set_inputs([values[index : index + 1] for values in inputs])
        session.invoke()
        for made, result in zip(found, session.results(), strict=True):
            made.append(result[0].copy())
        if on_progress and (index + 1) % REPORT_EVERY == 0:
            on_progress((index + 1) / total)
    return [np.stack(made) for made in found]
