"""Bootstrap intervals for medians of paired rounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95


def median_interval(
    values: npt.NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float, float]:
    """Returns the median of a sample and its 95 % percentile-bootstrap interval.

    Args:
        values: One value a round, (rounds,), rounds >= 1.
        rng: Source of the resampling.

    Returns:
        (median, low, high).

    Reference:
        Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    medians = np.median(values[picks], axis=1)
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(medians, [tail, 1.0 - tail])
    return float(np.median(values)), float(low), float(high)
