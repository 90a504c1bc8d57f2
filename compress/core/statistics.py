"""Confidence intervals of metrics and of their differences, with one rule for ties.

Two results differ if the 95 % interval of their difference excludes zero. The interval depends on
the comparison: results on the same examples (`compare_examples`), or proportions of two samples
(`compare_shares`). If the best of several is compared, the level is corrected for the number of
comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE_LEVEL = 0.95
"""Level of every interval before the correction for several comparisons."""
Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
JACKKNIFE_GROUPS = 200
"""Number of groups that a jackknife leaves out in turn; each costs one evaluation."""
MIN_EXAMPLES = 10
"""Minimum number of examples for an interval."""


@dataclass(frozen=True)
class Difference:
    """Difference, new minus old, with its two-sided interval.

    Attributes:
        estimate: The difference, in the unit of the compared values.
        low, high: Ends of the interval.
        level: Level of the interval, in (0, 1): `CONFIDENCE_LEVEL`, or higher for several
            comparisons.
    """

    estimate: float
    low: float
    high: float
    level: float = CONFIDENCE_LEVEL

    @property
    def is_tie(self) -> bool:
        """Whether the interval contains zero, so that the two cannot be distinguished."""
        return self.low <= 0.0 <= self.high


def correct_level(comparisons: int, level: float = CONFIDENCE_LEVEL) -> float:
    """Return the level of each interval at which several intervals hold simultaneously.

    Args:
        comparisons: Number of differences, at least 1.
        level: Level at which all of them shall hold.

    Example:
        >>> round(correct_level(50), 4)
        0.999

    Reference:
        Dunn 1961, "Multiple Comparisons Among Means" (Bonferroni's inequality).
    """
    return 1.0 - (1.0 - level) / max(1, comparisons)


def compare_examples(
    new: npt.NDArray[np.generic], old: npt.NDArray[np.generic], *, comparisons: int = 1
) -> Difference:
    """Compare a metric of two models on the same examples.

    Args:
        new, old: One value per example (or group of examples) whose mean is the metric, see
            `compress.data.tasks.Task.example_values`; in the same order, (n,).
        comparisons: Number of differences for which the interval must hold.

    Returns:
        The difference of the means. For binary values (0 wrong, 1 right) its interval is that
        of Bonett and Price, which has a positive width even if no example differs. For other
        values it is that of a paired t test.

    Raises:
        ValueError: The arrays have different lengths, or are empty.

    Example:
        >>> change = compare_examples(np.array([1, 1, 0, 1] * 25), np.array([1, 1, 1, 1] * 25))
        >>> round(change.estimate, 3), change.is_tie
        (-0.25, False)

    Reference:
        Bonett & Price 2012, "Adjusted Wald Confidence Interval for a Difference of Binomial
        Proportions Based on Paired Data", which adds an example to either side of the discordant
        ones; recommended by Fagerland, Lydersen & Laake 2014.
    """
    first, second = np.asarray(new, np.float64), np.asarray(old, np.float64)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"values must be of the same examples: {first.shape}, {second.shape}")
    level = correct_level(comparisons)
    change = first - second
    estimate = float(change.mean())
    if _is_binary(first) and _is_binary(second):
        count = len(change) + 2
        middle = float(change.sum()) / count
        variance = (float(np.square(change).sum()) + 2.0) / count - middle**2
        half = _compute_quantile(level) * math.sqrt(max(0.0, variance) / count)
        return Difference(estimate, middle - half, middle + half, level)
    half = _compute_half_width(change, level)
    return Difference(estimate, estimate - half, estimate + half, level)


def compare_shares(
    new: float, new_count: int, old: float, old_count: int, *, comparisons: int = 1
) -> Difference:
    """Compare accuracies on two samples of different examples.

    Args:
        new, old: Proportions of correct predictions, in [0, 1].
        new_count, old_count: Numbers of examples, at least 1.
        comparisons: Number of differences for which the interval must hold.

    Example:
        >>> compare_shares(0.93, 400, 0.91, 400).is_tie
        True

    Reference:
        Agresti & Caffo 2000, "Simple and Effective Confidence Intervals for Proportions and
        Differences of Proportions".
    """
    level = correct_level(comparisons)
    first, second = ((p * n + 1) / (n + 2) for p, n in ((new, new_count), (old, old_count)))
    variance = first * (1 - first) / (new_count + 2) + second * (1 - second) / (old_count + 2)
    half = _compute_quantile(level) * math.sqrt(variance)
    return Difference(new - old, first - second - half, first - second + half, level)


def compute_mean_interval(values: npt.NDArray[np.generic]) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric from its values per example.

    Args:
        values: See `compare_examples`, (n,).

    Returns:
        Wilson's interval for binary values, otherwise that of Student's t; None for fewer than
        `MIN_EXAMPLES` values.
    """
    samples = np.asarray(values, np.float64)
    if len(samples) < MIN_EXAMPLES:
        return None
    if _is_binary(samples):
        return compute_wilson_interval(float(samples.mean()), len(samples))
    half = _compute_half_width(samples, CONFIDENCE_LEVEL)
    return float(samples.mean()) - half, float(samples.mean()) + half


def compute_jackknife_values(
    count: int, evaluate: Callable[[npt.NDArray[np.int64]], float], *, seed: int = 0
) -> Floats:
    """Return jackknife pseudo-values of a metric, shifted so that their mean is the metric.

    Args:
        count: Number of examples n, at least 1.
        evaluate: Function from indices of examples, (m,), to their metric. A value that is not
            finite counts as undefined and is replaced by the metric of all examples.
        seed: Seed of the groups of examples; metrics to be compared must use the same seed.

    Returns:
        Pseudo-values, (min(n, `JACKKNIFE_GROUPS`),): one per example or group of examples.

    Reference:
        Tukey 1958; Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 11.5.
        Deviation: the mean is the metric itself, not its jackknife estimate.
    """
    groups = min(count, JACKKNIFE_GROUPS)
    member = np.random.default_rng(seed).permutation(count) % groups
    whole = evaluate(np.arange(count))
    if groups < 2:
        return np.array([whole])
    others = np.array([evaluate(np.flatnonzero(member != group)) for group in range(groups)])
    others = np.where(np.isfinite(others), others, whole)
    values = groups * whole - (groups - 1) * others
    shifted: Floats = values - values.mean() + whole
    return shifted


def compute_wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion of independent examples.

    Args:
        share: The proportion, in [0, 1].
        count: Number of examples, at least 1.

    Reference:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
        It also covers proportions near 0 and 1, unlike the normal interval (Brown, Cai &
        DasGupta 2001).
    """
    spread = Z * Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def _is_binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _compute_half_width(values: Floats, level: float) -> float:
    if len(values) < 2:
        return math.inf
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return _compute_quantile(level, len(values) - 1) * error


def _compute_quantile(level: float, freedom: float | None = None) -> float:
    """Return the end of a central interval of the normal distribution, or of Student's."""
    from scipy.special import ndtri, stdtrit

    share = (1.0 + level) / 2.0
    return float(ndtri(share) if freedom is None else stdtrit(freedom, share))
