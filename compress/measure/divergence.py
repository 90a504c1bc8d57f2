"""How far a model's outputs are from those wanted, in one number that needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_TINY = 1e-9
"""What a probability counts as at least."""


def divergence(wanted: Sequence[Any], made: Sequence[Any]) -> float:
    """Returns how far outputs are from those wanted, all outputs together.

    Of class probabilities it is their mean Kullback-Leibler divergence, of other outputs the
    squared error relative to their spread over the examples.

    Args:
        wanted: What was wanted, an array an output.
        made: The same, of the model that is judged.

    Shapes:
        wanted, made: (n, ...) each; probabilities (n, ..., classes) that sum to one.

    Returns:
        Nats an example (and position), or a share of the spread; 0: alike.

    Example:
        >>> divergence([np.array([[0.5, 0.5]])], [np.array([[0.5, 0.5]])])
        0.0

    Reference:
        Kullback and Leibler 1951, "On Information and Sufficiency", equation 2.4; ours:
        probabilities below 1e-9 count as that.
    """
    pairs = [(np.asarray(y), np.asarray(z)) for y, z in zip(wanted, made, strict=True)]
    unit = sum(spread(y) for y, _ in pairs)
    return sum(distance(y, z) for y, z in pairs) / max(unit, 1e-30)


def spread(y: npt.NDArray[Any]) -> float:
    """Returns what distances are divided by: examples, or the spread of numbers."""
    if _probabilities(y):
        return float(y.size // y.shape[-1])
    y = y.astype(np.float64)
    return float(((y - y.mean(0)) ** 2).sum())


def distance(wanted: npt.NDArray[Any], made: npt.NDArray[Any]) -> float:
    """Returns the sum over examples that `divergence` divides by `spread`."""
    wanted, made = wanted.astype(np.float64), made.astype(np.float64)
    if _probabilities(wanted):
        ratio = np.log(np.maximum(wanted, _TINY)) - np.log(np.maximum(made, _TINY))
        return float((wanted * ratio).sum())
    return float(((wanted - made) ** 2).sum())


def _probabilities(y: npt.NDArray[Any]) -> bool:
    sums = y.sum(-1)
    return y.ndim > 1 and y.shape[-1] > 1 and bool(y.min() >= 0 and np.abs(sums - 1).max() < 1e-3)
