"""Quality of an exported file: the artefact that ships is what is judged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from compress.measure.runtimes import Session

REPORT_EVERY = 250


def run_all(
    session: Session,
    x: npt.NDArray[np.float32],
    on_progress: Callable[[float], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Runs every example through a session of batch size 1.

    Args:
        session: From `Runtime.prepare`.
        x: Model inputs (n, ...), as `Dataset.inputs` gives them.
        on_progress: Called now and then with the share that is done.

    Returns:
        Outputs, (n, classes).
    """
    outputs = []
    for index in range(len(x)):
        session.set_input(x[index : index + 1])
        session.invoke()
        outputs.append(session.output()[0].copy())
        if on_progress and (index + 1) % REPORT_EVERY == 0:
            on_progress((index + 1) / len(x))
    return np.stack(outputs)
