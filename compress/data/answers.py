"""What a model answers, in place of labels that there are none of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from compress.data._base import Split
from compress.data.preprocessing import Preprocessing

Answering = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Inputs (n, ...) -> a model's outputs (n, outputs)."""
BATCH = 1024
"""Examples that are answered at a time."""


def answered(split: Split, preprocess: Preprocessing, answers: Answering) -> Split:
    """Returns examples with a model's answers to them as labels, (n, outputs).

    Args:
        split: Examples; their labels are not looked at.
        preprocess: Raw examples -> model inputs.
        answers: Of the model.
    """
    starts = range(0, len(split.x), BATCH)
    found = [answers(preprocess(split.x[start : start + BATCH])) for start in starts]
    return replace(split, y=np.concatenate(found).astype(np.float32))
