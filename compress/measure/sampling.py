"""How far a quality on n test examples may lie from that on all examples: 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Z = 1.959963984540054
"""The standard normal's 97.5 % quantile."""
RESAMPLES = 400
"""Of a bootstrap: the ends of its interval differ by a twentieth of its width between seeds."""

FEWEST = 10
"""With fewer examples samples of them say little."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share of independent examples.

    Args:
        share: That is right, in [0, 1].
        count: Of examples, at least 1.

    Reference:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
        It covers at shares near 0 and 1 too, where the normal interval does not (Brown, Cai &
        DasGupta 2001).
    """
    spread = Z * Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def resampled(
    count: int,
    quality: Callable[[npt.NDArray[np.int64]], dict[str, float]],
    name: str,
    *,
    seed: int,
) -> tuple[float, float] | None:
    """Returns a quality's 95 % interval by resampling the examples (percentile bootstrap).

    None where there are fewer than `FEWEST` examples, or some samples of them have no quality.

    Args:
        count: Of examples, n.
        quality: Places of examples, (n,), some of them several times -> qualities by name.
        name: Which of them.
        seed: Of the resampling.

    Reference:
        Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    if count < FEWEST:
        return None
    random = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        found.append(quality(random.integers(count, size=count))[name])
    if not np.isfinite(found).all():
        return None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)
