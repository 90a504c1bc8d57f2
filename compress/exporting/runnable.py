"""Whether a file that was made can be run: some converters write what their runtime refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.core.errors import InputError, one_line
from compress.measure.runtimes import Session, session_for


def runnable(path: Path) -> Session:
    """Prepares a file and runs it once, on zeros.

    Kernels may refuse a type when they are run, and not before: LiteRT's of int16 do.

    Args:
        path: Of a kind that some runtime runs.

    Raises:
        InputError: It cannot be prepared, or not be run.
    """
    session = session_for(path)
    session.set_inputs([np.zeros(info.shape, np.float32) for info in session.inputs])
    try:
        session.invoke()
    except RuntimeError as error:
        raise InputError(
            f"'{path.name}' must be a file that its runtime can run. Received: one that it refuses "
            f"({one_line(error)})."
        ) from None
    return session
