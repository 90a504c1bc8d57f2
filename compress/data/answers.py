"""What a model answers, in place of labels that there are none of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from compress.core.columns import arrays, count, joined, mapped, taken
from compress.data.parts import Split
from compress.data.preprocessing import Preprocessing


class Answering(Protocol):
    """What a model answers: inputs (n, ...) -> outputs (n, ..., outputs), of several by name."""

    def __call__(self, inputs: Any) -> Any:
        """Return the answers to inputs."""
        ...

    def most(self, sizes: Sequence[tuple[int, ...]]) -> int:
        """Return how many examples of these sizes may be answered at a time."""
        ...


def answered(split: Split, preprocess: Preprocessing, answers: Answering) -> Split:
    """Returns examples with a model's answers to them as labels, (n, outputs).

    Args:
        split: Examples; their labels are not looked at.
        preprocess: Raw examples -> model inputs.
        answers: Of the model.
    """
    size = answers.most([values.shape[1:] for values in arrays(split.x)])
    starts = range(0, count(split.x), size)
    found = [answers(preprocess(taken(split.x, slice(at, at + size)))) for at in starts]
    return replace(split, y=mapped(lambda made: made.astype(np.float32), joined(found)))
