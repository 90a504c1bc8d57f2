"""Prediction of candidates: quality by a Gaussian process, and gain in hypervolume."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import qmc, spearmanr

from compress.core.device import one_blas_thread
from search.samplers._base import Choices

Numbers = npt.NDArray[np.float64]
FITTED = 128
"""Rows by which the kernel's parameters are fitted; all of them are predicted from."""
START = np.log([1.0, 1.0, 1.0, 3.0, 0.01])
BOUNDS = np.log([(1e-3, 1e3), (1e-4, 1e4), (1e-3, 1e3), (0.5, 50.0), (1e-5, 1.0)])
"""Of the logarithms of `Kernel`'s parameters, in its order."""
STEPS = 40
JITTER = 1e-8
MOST_VALUES = 12
"""Categories that have columns of their own; more of them share one, by their order."""
MARGIN = 0.1
"""The worst point that counts lies so far behind the worst of the front, in its ranges."""
POINTS = 1024
"""At which volumes of several costs are measured."""


class Predictor:
    """A Gaussian process whose kernel is fitted to the observations.

    Trees, bagged or boosted, rank a few dozen told nets less well, and what they disagree by
    says less of where they are wrong (measured: docs/search.md).

    Args:
        rows: (told, columns), scaled to mean 0 and spread 1 among candidates.
        values: What was told, (told,).
        noise: Variance of each beyond the common one, (told,).
        rng: Draws the rows that the kernel is fitted by, where there are many.

    Reference:
        Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1,
        equations 5.9 (fitting) and 5.12 (leaving one out).
    """

    def __init__(
        self, rows: Numbers, values: Numbers, noise: Numbers, rng: np.random.Generator
    ) -> None:
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._y = (values - self._mean) / self._scale
        extra = noise / self._scale**2
        some = np.sort(rng.permutation(len(rows))[:FITTED])
        self.kernel = fitted(rows[some], self._y[some], extra[some])
        self._rows = rows
        told = self.kernel(rows, rows) + np.diag(self.kernel.noise + JITTER + extra)
        self._factor = cho_factor(told, lower=True)
        self._alpha = cho_solve(self._factor, self._y)

    def __call__(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Return mean and spread of the quality itself, without the noise of telling it."""
        across = self.kernel(rows, self._rows)
        known = solve_triangular(self._factor[0], across.T, lower=True)
        prior = self.kernel.diagonal(rows)
        variance = np.maximum(prior - (known**2).sum(0), 1e-12 * prior)
        mean = across @ self._alpha
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def correlation(self) -> float:
        """Return the rank correlation of observations with their leave-one-out predictions."""
        inverse = cho_solve(self._factor, np.eye(len(self._y)))
        apart = self._y - self._alpha / np.diag(inverse)
        if np.ptp(apart) == 0 or np.ptp(self._y) == 0:
            return 0.0
        return float(spearmanr(apart, self._y).statistic)


class Kernel:
    """k(x, y) = a (b + x'y) + c exp(-|x - y|^2 / 2 l^2), and noise s where x and y are one.

    The linear part says which choices are better whatever the others are, the smooth one what is
    left; a dozen told trials do for the first.

    Args:
        logs: Logarithms of a, b, c, l, s.
    """

    def __init__(self, logs: Numbers) -> None:
        self.a, self.b, self.c, self.length, self.noise = np.exp(logs)

    def __call__(self, one: Numbers, two: Numbers) -> Numbers:
        """Return k of all pairs, without the noise."""
        products = one @ two.T
        squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * products
        smooth = np.exp(-np.maximum(squares, 0) / (2 * self.length**2))
        return np.asarray(self.a * (self.b + products) + self.c * smooth)

    def diagonal(self, rows: Numbers) -> Numbers:
        """Return k of each row with itself, without the noise."""
        return np.asarray(self.a * (self.b + (rows**2).sum(1)) + self.c)


def fitted(rows: Numbers, y: Numbers, extra: Numbers) -> Kernel:
    """Return the kernel of maximum likelihood for the observations.

    Args:
        rows: (told, columns).
        y: With mean 0 and spread 1, (told,).
        extra: Variance of each beyond the common one.
    """
    products = rows @ rows.T
    own = np.diag(products)
    squares = np.maximum(own[:, None] + own - 2 * products, 0)
    one = np.eye(len(rows))

    def loss(logs: Numbers) -> tuple[float, Numbers]:
        kernel = Kernel(logs)
        smooth = kernel.c * np.exp(-squares / (2 * kernel.length**2))
        linear = kernel.a * (kernel.b + products)
        told = linear + smooth
        told[np.diag_indices_from(told)] += kernel.noise + JITTER + extra
        factor = cho_factor(told, lower=True)
        inverse = cho_solve(factor, one)
        alpha = inverse @ y
        value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum())
        inner = inverse - np.outer(alpha, alpha)
        changes = (linear, np.full(1, kernel.a * kernel.b), smooth,
                   smooth * squares / kernel.length**2)  # fmt: skip
        gradient = [0.5 * float((inner * change).sum()) for change in changes]
        return value, np.array([*gradient, 0.5 * kernel.noise * float(np.trace(inner))])

    found = minimize(
        loss, START, jac=True, method="L-BFGS-B", bounds=BOUNDS, options={"maxiter": STEPS}
    )
    return Kernel(found.x)


class Encoding:
    """Columns for the choices of a space.

    A category has a column for each of its values, a number one (its logarithm where it is drawn
    on that scale); what is not asked is 0 and the mean. Where several categories offer the same
    values (the kind of each layer), how often each value was chosen has a column too: that is
    how deep a net is.

    Args:
        distributions: By name.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        column = count()
        self._numbers: dict[str, int] = {}
        self._logs = {name for name, item in distributions.items() if getattr(item, "log", False)}
        # (parameter, value) -> the columns that it counts in
        self._values: dict[tuple[str, str], list[int]] = {}
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, item in distributions.items():
            if item.single():
                continue
            choices = item.choices if isinstance(item, CategoricalDistribution) else None
            if choices is None or numeric(choices):
                self._numbers[name] = next(column)
            if choices is not None and len(choices) <= MOST_VALUES:
                keys = tuple(map(repr, choices))
                self._values |= {(name, key): [next(column)] for key in keys}
                alike.setdefault(keys, []).append(name)
        for keys, names in alike.items():
            if len(names) > 1:
                for key in keys:
                    place = next(column)
                    for name in names:
                        self._values[name, key].append(place)
        self.columns = next(column)

    def rows(self, many: Sequence[Mapping[str, Any]]) -> Numbers:
        """Return (choices, columns); NaN where a number was not asked."""
        found = np.zeros((len(many), self.columns))
        found[:, list(self._numbers.values())] = np.nan
        for row, chosen in zip(found, many, strict=True):
            for name, value in chosen.items():
                if name in self._numbers:
                    number = float(value)
                    row[self._numbers[name]] = math.log(number) if name in self._logs else number
                for place in self._values.get((name, repr(value)), ()):
                    row[place] += 1.0
        return found


def numeric(values: Sequence[Any]) -> bool:
    """Tell whether categories are at least three numbers: they have an order then."""
    return len(values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )


@dataclass(frozen=True, eq=False)
class Priced:
    """Choices and their costs.

    Attributes:
        choices: Complete.
        costs: Lower is better, (choices, costs); NaN where it is not known.
        places: Of the choices, among those that were to be priced.
    """

    choices: Sequence[Choices]
    costs: Numbers
    places: Sequence[int] = ()


@one_blas_thread()  # several would wait for each other longer than these matrices take
def promise(
    encoding: Encoding,
    pool: Priced,
    ended: Priced,
    stopped: Priced,
    running: Priced,
    quality: Numbers,
    noise: Numbers,
    front: int,
    rng: np.random.Generator,
) -> tuple[Numbers, float]:
    """Predict by how much candidates would enlarge the front's hypervolume.

    Args:
        encoding: Of the choices.
        pool: Candidates.
        ended: Told trials, at least two, with all costs; those on the front come first.
        stopped: Trials of which only the beginning is known.
        running: What is being tried.
        quality: Of the ended trials, then of the stopped ones: higher is better.
        noise: Variance of these qualities beyond that of every training.
        front: How many of the ended trials are on the front.
        rng: Draws.

    Returns:
        The expected growth of the hypervolume by each candidate, (candidates,); how well told
        trials foretell each other: a rank correlation.
    """
    each = [pool, ended, stopped, running]
    costs = [part.costs.copy() for part in each]
    # what a candidate costs is known of all, or it tells nothing of its quality
    known = ~np.any([np.isnan(part).any(0) for part in costs], axis=0)
    rows = _scaled(
        [np.concatenate([encoding.rows(part.choices), item[:, known]], 1)
         for part, item in zip(each, costs, strict=True)], int(known.sum()),
    )  # fmt: skip
    for column in np.flatnonzero(~known):
        predict = Predictor(rows[1], costs[1][:, column], np.zeros(len(rows[1])), rng)
        for item, row in zip(costs, rows, strict=True):
            gaps = np.isnan(item[:, column])
            if gaps.any():
                item[gaps, column] = predict(row[gaps])[0]
    predict = Predictor(np.concatenate(rows[1:3]), quality, noise, rng)
    mean, spread = predict(rows[0])
    # smoothed: of equal nets the lucky one is not the better one
    reached, _ = predict(np.concatenate([rows[1], rows[3]]))
    points = np.column_stack([reached, np.concatenate([costs[1], costs[3]])])
    reference = _reference(points[:front], points)
    gains = expected_improvement(mean, spread, costs[0], points, reference)
    return gains, predict.correlation()


def _scaled(parts: Sequence[Numbers], known: int) -> list[Numbers]:
    """Return rows with mean 0 and spread 1 in the first part, and squares of the last columns.

    Args:
        parts: Rows; NaN becomes 0.
        known: Columns at the end that have squares besides.
    """
    first = parts[0]
    missing = np.isnan(first)
    filled, count = np.where(missing, 0.0, first), np.maximum(1, (~missing).sum(0))
    mean = filled.sum(0) / count
    spread = np.sqrt((np.where(missing, 0.0, first - mean) ** 2).sum(0) / count)
    found = []
    for part in parts:
        rows = (part - mean) / np.where(spread > 1e-12, spread, np.inf)
        rows = np.where(np.isnan(rows), 0.0, rows)
        found.append(np.concatenate([rows, rows[:, rows.shape[1] - known :] ** 2], 1))
    return found


def _reference(front: Numbers, points: Numbers) -> Numbers:
    low, high = front[:, 0].min(), front[:, 0].max()
    spread = max(float(high - low), float(points[:, 0].std()), 1e-9)
    costs = points[:, 1:]
    worst = costs.max(0) + MARGIN * (costs.max(0) - costs.min(0))
    return np.concatenate([[low - MARGIN * spread], worst])


def expected_improvement(
    mean: Numbers, spread: Numbers, costs: Numbers, front: Numbers, reference: Numbers
) -> Numbers:
    """Return the expected growth of the front's hypervolume by each candidate.

    Between two qualities of the front, a candidate adds the same volume of costs all the way:
    that which no member of at least the upper quality has. So the expectation is a sum, over
    these steps, of that volume times what of the step a normal quality is expected to reach:

        sum_i V_i(c) (E max(0, q - h_i) - E max(0, q - h_(i+1)))

    exact for one cost; volumes of several are measured at quasi-random points.

    Args:
        mean, spread: Of the predicted quality, higher is better, (candidates,).
        costs: Known, lower is better, (candidates, costs); no column: quality alone counts.
        front: Members as (quality, *costs), (members, 1 + costs).
        reference: The worst (quality, *costs) that counts.

    Returns:
        (candidates,), at least 0.

    Reference:
        Emmerich, Deutz & Klinkenberg 2011, "Hypervolume-based expected improvement: Monotonicity
        properties and exact computation"; here only one objective is random, which leaves the
        sum above.
    """
    members = front[front[:, 0] > reference[0]]
    levels = np.concatenate([reference[:1], np.sort(members[:, 0])])
    # (steps, candidates): what of all above a level is expected
    above = np.array([_reached(mean, spread, level) for level in levels])
    steps = above - np.concatenate([above[1:], np.zeros((1, len(mean)))])
    return np.asarray((steps * _volumes(costs, members, levels, reference[1:])).sum(0))


def _reached(mean: Numbers, spread: Numbers, level: float) -> Numbers:
    """Return E max(0, q - level) of normal q."""
    gap, wide = mean - level, np.maximum(spread, 1e-12)
    z = gap / wide
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(gap * ndtr(z) + wide * density)


def _volumes(costs: Numbers, members: Numbers, levels: Numbers, worst: Numbers) -> Numbers:
    """Return the volume of costs that a candidate alone has above each level, (levels, n)."""
    if costs.shape[1] == 0:
        # a member of a quality has all there is up to it
        free = np.array([not (members[:, 0] > level).any() for level in levels], float)
        return np.repeat(free[:, None], len(costs), 1)
    if costs.shape[1] == 1:
        least = [min(worst[0], *members[members[:, 0] > level, 1], np.inf) for level in levels]
        return np.maximum(0, np.array(least)[:, None] - costs[:, 0])
    low = np.minimum(costs.min(0), members[:, 1:].min(0, initial=np.inf))
    size = np.maximum(worst - low, 0)
    points = low + qmc.Sobol(costs.shape[1], seed=0).random(POINTS) * size
    inside = (costs[:, None] <= points).all(2)
    found = []
    for level in levels:
        better = members[members[:, 0] > level, 1:]
        taken = (better[:, None] <= points).all(2).any(0)
        found.append(np.count_nonzero(inside & ~taken, axis=1) * (size.prod() / POINTS))
    return np.array(found)
