"""Whether a file that was made can be run: some converters write what their runtime refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compress.core.errors import InputError, one_line
from compress.measure.runtimes import Session, session_for


def runnable(path: Path, inputs: Sequence[npt.NDArray[Any]]) -> Session:
    """Prepares a file and runs it once, on the first of some examples.

    Kernels may refuse a type when they are run, and not before: LiteRT's of int16 do. Others refuse
    values: its division of integers ends where the divisor is zero, as the contrast of an image
    that is zeros is. Hence an example of the data.

    Args:
        path: Of a kind that some runtime runs.
        inputs: As the model takes them, an array (n >= 1, ...) each, in the model's order.

    Raises:
        InputError: It cannot be prepared, or not be run.
    """
    session = session_for(path)
    session.set_inputs([values[:1] for values in inputs])
    try:
        session.invoke()
    except RuntimeError as error:
        raise InputError(
            f"'{path.name}' must be a file that its runtime can run. Received: one that it refuses "
            f"({one_line(error)})."
        ) from None
    return session
