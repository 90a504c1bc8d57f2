"""What a model answers, in place of labels that there are none of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from compress.core.columns import count, joined, mapped, taken
from compress.data.parts import Split
from compress.data.preprocessing import Preprocessing

Answering = Callable[[Any], Any]
"""Inputs (n, ...) -> a model's outputs (n, ..., outputs); of several an array each, by name."""
BATCH = 1024
"""Examples that are answered at a time."""


def answered(split: Split, preprocess: Preprocessing, answers: Answering) -> Split:
    """Returns examples with a model's answers to them as labels, (n, outputs).

    Args:
        split: Examples; their labels are not looked at.
        preprocess: Raw examples -> model inputs.
        answers: Of the model.
    """
    starts = range(0, count(split.x), BATCH)
    found = [answers(preprocess(taken(split.x, slice(at, at + BATCH)))) for at in starts]
    return replace(split, y=mapped(lambda made: made.astype(np.float32), joined(found)))
