"""One rule for ties: 95 % intervals of metrics and of differences between them.

Two results differ where the interval of their difference leaves zero out. What is compared decides
how the interval is made: results on the same examples (`compare_examples`), shares of two samples
(`compare_shares`), means over seeds (`compare_means`). Where the best of several is compared, the
level is corrected for how many there were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
"""Of every interval, before it is corrected for several comparisons."""
Z = 1.959963984540054
"""The standard normal's 97.5 % quantile."""
GROUPS = 200
"""Groups of examples that a jackknife leaves out in turn: each costs one evaluation."""
FEWEST = 10
"""With fewer examples no interval is given: samples of them say little."""


@dataclass(frozen=True)
class Difference:
    """A difference, new minus old, with its two-sided interval.

    Attributes:
        estimate: The difference, in the unit of what is compared.
        low, high: Ends of the interval.
        level: Of the interval, in (0, 1): `LEVEL`, or higher where several were compared.
    """

    estimate: float
    low: float
    high: float
    level: float = LEVEL

    @property
    def is_tie(self) -> bool:
        """Whether the interval holds zero: the two cannot be told apart."""
        return self.low <= 0.0 <= self.high


def correct_level(comparisons: int, level: float = LEVEL) -> float:
    """Return the level at which each of several intervals must be made for all to hold together.

    Args:
        comparisons: How many differences are looked at, at least 1.
        level: At which all of them shall hold.

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
        new, old: A value an example (or a group of examples) whose mean is the metric, see
            `compress.data.tasks.Task.example_values`; in the same order, (n,).
        comparisons: How many differences the interval must hold for.

    Returns:
        The difference of the means. Its interval is Bonett and Price's where values are 0 or 1
        (wrong or right): a difference of zero on few examples is then no certainty. Of other
        values it is that of a paired t test.

    Example:
        >>> found = compare_examples(np.array([1, 1, 0, 1] * 25), np.array([1, 1, 1, 1] * 25))
        >>> round(found.estimate, 3), found.is_tie
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
    if _is_right_or_wrong(first) and _is_right_or_wrong(second):
        count = len(change) + 2
        middle = float(change.sum()) / count
        variance = (float(np.square(change).sum()) + 2.0) / count - middle**2
        half = _normal_quantile(level) * math.sqrt(max(0.0, variance) / count)
        return Difference(estimate, middle - half, middle + half, level)
    half = _mean_half_width(change, level)
    return Difference(estimate, estimate - half, estimate + half, level)


def compare_shares(
    new: float, new_count: int, old: float, old_count: int, *, comparisons: int = 1
) -> Difference:
    """Compare shares of right answers on two samples of different examples.

    Args:
        new, old: Shares in [0, 1].
        new_count, old_count: Examples of each, at least 1.
        comparisons: How many differences the interval must hold for.

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
    half = _normal_quantile(level) * math.sqrt(variance)
    return Difference(new - old, first - second - half, first - second + half, level)


def compare_means(
    new: float,
    new_error: float,
    new_count: int,
    old: float,
    old_error: float,
    old_count: int,
    *,
    comparisons: int = 1,
) -> Difference:
    """Compare two means over seeds, by their standard errors.

    Args:
        new, old: The means.
        new_error, old_error: Their standard errors, at least 0.
        new_count, old_count: Seeds of each, at least 2. An `old_count` of 0 says that `old` is a
            number without an error, zero say.
        comparisons: How many differences the interval must hold for.

    Example:
        >>> compare_means(0.930, 0.001, 3, 0.927, 0.001, 3).is_tie
        True

    Reference:
        Welch 1947, "The generalization of 'Student's' problem when several different population
        variances are involved".
    """
    level = correct_level(comparisons)
    parts = [(new_error**2, new_count), (old_error**2, old_count)]
    variance = sum(error for error, _ in parts)
    below = sum(error**2 / (count - 1) for error, count in parts if count > 1)
    freedom = variance**2 / below if below > 0 else max(new_count - 1, old_count - 1, 1)
    half = _student_quantile(level, freedom) * math.sqrt(variance)
    return Difference(new - old, new - old - half, new - old + half, level)


def bound_mean(values: npt.NDArray[np.generic]) -> tuple[float, float] | None:
    """Return the 95 % interval of a metric from its values by example.

    Args:
        values: See `compare_examples`, (n,).

    Returns:
        Wilson's interval where each example is right or wrong, else that of Student's t; None
        below `FEWEST` values.
    """
    known = np.asarray(values, np.float64)
    if len(known) < FEWEST:
        return None
    if _is_right_or_wrong(known):
        return wilson(float(known.mean()), len(known))
    half = _mean_half_width(known, LEVEL)
    return float(known.mean()) - half, float(known.mean()) + half


def jackknife_values(
    count: int, evaluate: Callable[[npt.NDArray[np.int64]], float], *, seed: int = 0
) -> Floats:
    """Return values whose mean is a metric of all examples and whose spread is its error.

    Args:
        count: Of examples, n, at least 1.
        evaluate: Indices of examples, (m,) -> the metric of these; not finite where it is not
            defined, which then tells nothing.
        seed: Of the groups in which examples are left out; metrics that shall be compared must
            have the same.

    Returns:
        Pseudo-values, (min(n, `GROUPS`),): one an example, or one a group of examples.

    Reference:
        Tukey 1958; Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 11.5.
        Ours: shifted so that their mean is the metric itself, not its jackknife estimate.
    """
    groups = min(count, GROUPS)
    member = np.random.default_rng(seed).permutation(count) % groups
    whole = evaluate(np.arange(count))
    if groups < 2:
        return np.array([whole])
    others = np.array([evaluate(np.flatnonzero(member != group)) for group in range(groups)])
    others = np.where(np.isfinite(others), others, whole)
    values = groups * whole - (groups - 1) * others
    shifted: Floats = values - values.mean() + whole
    return shifted


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of independent examples.

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


def _is_right_or_wrong(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _mean_half_width(values: Floats, level: float) -> float:
    if len(values) < 2:
        return math.inf
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return _student_quantile(level, len(values) - 1) * error


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1.0 + level) / 2.0))


def _student_quantile(level: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1.0 + level) / 2.0))
