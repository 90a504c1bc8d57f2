"""Prediction of candidates' metrics by a Gaussian process, and of their gains in hypervolume."""

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

from compress.core.device import limit_blas_threads
from search.samplers._base import Choices

Numbers = npt.NDArray[np.float64]
MAX_FIT_ROWS = 128
"""Maximum number of rows for fitting the kernel's parameters; predictions use all rows."""
INITIAL_LOGS = np.log([1.0, 1.0, 1.0, 3.0, 0.01])
BOUNDS = np.log([(1e-3, 1e3), (1e-4, 1e4), (1e-3, 1e3), (0.5, 50.0), (1e-5, 1.0)])
"""Bounds of the logarithms of `Kernel`'s parameters, in its order."""
MAX_STEPS = 40
JITTER = 1e-8
MAX_VALUE_COLUMNS = 12
"""Maximum number of values of a categorical parameter with one column per value.

Of parameters with more values, only numeric ones are encoded, by one column.
"""
MARGIN = 0.1
"""Distance of the reference point beyond the worst values, as a share of the range.

The worst metric is that of the front, the worst costs are those of all ended and running trials.
"""
VOLUME_POINTS = 1024
"""Number of quasi-random points for measuring volumes of several costs."""


class GaussianProcess:
    """A Gaussian process whose kernel is fitted to the observations.

    Tree ensembles (bagged or boosted) rank a few dozen observed models less well, and the spread of
    their predictions is less related to the errors (measured: docs/results/search.md).

    Args:
        rows: (observations, columns), scaled to mean 0 and standard deviation 1 among candidates.
        values: Observed values, (observations,).
        noise: Variance of each observation beyond the common noise, (observations,).
        rng: Random number generator, which selects the rows for fitting the kernel if there are
            many.

    Reference:
        Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1,
        equations 5.9 (fitting) and 5.12 (leaving one out).
    """

    def __init__(
        self, rows: Numbers, values: Numbers, noise: Numbers, rng: np.random.Generator
    ) -> None:
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        self._y = (values - self._mean) / self._scale
        scaled_noise = noise / self._scale**2
        fit_rows = np.sort(rng.permutation(len(rows))[:MAX_FIT_ROWS])
        self.kernel = fit_kernel(rows[fit_rows], self._y[fit_rows], scaled_noise[fit_rows])
        self._rows = rows
        covariance = self.kernel(rows, rows) + np.diag(self.kernel.noise + JITTER + scaled_noise)
        self._factor = cho_factor(covariance, lower=True)
        self._alpha = cho_solve(self._factor, self._y)

    def __call__(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Return mean and standard deviation of the value itself, without observation noise."""
        covariance = self.kernel(rows, self._rows)
        solved = solve_triangular(self._factor[0], covariance.T, lower=True)
        prior = self.kernel.compute_diagonal(rows)
        variance = np.maximum(prior - (solved**2).sum(0), 1e-12 * prior)
        mean = covariance @ self._alpha
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def compute_correlation(self) -> float:
        """Return the rank correlation of observations with their leave-one-out predictions."""
        inverse = cho_solve(self._factor, np.eye(len(self._y)))
        predictions = self._y - self._alpha / np.diag(inverse)
        if np.ptp(predictions) == 0 or np.ptp(self._y) == 0:
            return 0.0
        return float(spearmanr(predictions, self._y).statistic)


class Kernel:
    """k(x, y) = a (b + x'y) + c exp(-|x - y|^2 / 2 l^2), plus noise s on the diagonal.

    The linear part models effects of choices that do not depend on the others, for which a dozen
    observations are enough. The smooth part models the rest.

    Args:
        logs: Logarithms of a, b, c, l, s.
    """

    def __init__(self, logs: Numbers) -> None:
        self.a, self.b, self.c, self.length, self.noise = np.exp(logs)

    def __call__(self, first: Numbers, second: Numbers) -> Numbers:
        """Return k of all pairs, without the noise."""
        products = first @ second.T
        squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * products
        smooth = np.exp(-np.maximum(squares, 0) / (2 * self.length**2))
        return np.asarray(self.a * (self.b + products) + self.c * smooth)

    def compute_diagonal(self, rows: Numbers) -> Numbers:
        """Return k of each row with itself, without the noise."""
        return np.asarray(self.a * (self.b + (rows**2).sum(1)) + self.c)


def fit_kernel(rows: Numbers, y: Numbers, noise: Numbers) -> Kernel:
    """Return the kernel with the maximum marginal likelihood of the observations.

    Args:
        rows: (observations, columns).
        y: Observed values, standardized over all observations, (observations,).
        noise: Variance of each observation beyond the common noise, (observations,).
    """
    products = rows @ rows.T
    norms = np.diag(products)
    squares = np.maximum(norms[:, None] + norms - 2 * products, 0)
    identity = np.eye(len(rows))

    def compute_loss(logs: Numbers) -> tuple[float, Numbers]:
        kernel = Kernel(logs)
        smooth = kernel.c * np.exp(-squares / (2 * kernel.length**2))
        linear = kernel.a * (kernel.b + products)
        covariance = linear + smooth
        covariance[np.diag_indices_from(covariance)] += kernel.noise + JITTER + noise
        factor = cho_factor(covariance, lower=True)
        inverse = cho_solve(factor, identity)
        alpha = inverse @ y
        value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor[0])).sum())
        inner = inverse - np.outer(alpha, alpha)
        changes = (linear, np.full(1, kernel.a * kernel.b), smooth,
                   smooth * squares / kernel.length**2)  # fmt: skip
        gradient = [0.5 * float((inner * change).sum()) for change in changes]
        return value, np.array([*gradient, 0.5 * kernel.noise * float(np.trace(inner))])

    result = minimize(
        compute_loss,
        INITIAL_LOGS,
        jac=True,
        method="L-BFGS-B",
        bounds=BOUNDS,
        options={"maxiter": MAX_STEPS},
    )
    return Kernel(result.x)


class Encoding:
    """Encoding of the choices of a space as columns of numbers.

    A number has one column (its logarithm if log-scaled). A categorical parameter has one column
    per value, up to `MAX_VALUE_COLUMNS` values; if its values are numbers, it also has the column
    of a number. Inactive categories are 0, inactive numbers are NaN. If several categorical
    parameters have the same values (such as the kind of each layer), additional columns count each
    value, which measures the depth of a model.

    Args:
        distributions: Distributions of the parameters, by name; those with one value are left out.

    Attributes:
        columns: Number of columns.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        column = count()
        self._numbers: dict[str, int] = {}
        self._logs = {name for name, item in distributions.items() if getattr(item, "log", False)}
        # (parameter, value) -> the columns that it increments
        self._values: dict[tuple[str, str], list[int]] = {}
        names_by_values: dict[tuple[str, ...], list[str]] = {}
        for name, item in distributions.items():
            if item.single():
                continue
            choices = item.choices if isinstance(item, CategoricalDistribution) else None
            if choices is None or is_numeric(choices):
                self._numbers[name] = next(column)
            if choices is not None and len(choices) <= MAX_VALUE_COLUMNS:
                keys = tuple(map(repr, choices))
                self._values |= {(name, key): [next(column)] for key in keys}
                names_by_values.setdefault(keys, []).append(name)
        for keys, names in names_by_values.items():
            if len(names) > 1:
                for key in keys:
                    value_column = next(column)
                    for name in names:
                        self._values[name, key].append(value_column)
        self.columns = next(column)

    def encode(self, choices: Sequence[Mapping[str, Any]]) -> Numbers:
        """Return (choices, columns); NaN for inactive numbers."""
        rows = np.zeros((len(choices), self.columns))
        rows[:, list(self._numbers.values())] = np.nan
        for row, chosen in zip(rows, choices, strict=True):
            for name, value in chosen.items():
                if name in self._numbers:
                    number = float(value)
                    row[self._numbers[name]] = math.log(number) if name in self._logs else number
                for column in self._values.get((name, repr(value)), ()):
                    row[column] += 1.0
        return rows


def is_numeric(values: Sequence[Any]) -> bool:
    """Return whether categories are at least three numbers, so that their order matters."""
    return len(values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )


@dataclass(frozen=True, eq=False)
class CostedChoices:
    """Choices and their costs.

    Attributes:
        choices: Complete choices.
        costs: (choices, costs), lower is better; NaN for unknown costs.
        indices: Indices of the choices in the list before filtering.
    """

    choices: Sequence[Choices]
    costs: Numbers
    indices: Sequence[int] = ()


@limit_blas_threads(1)  # synchronizing several threads takes longer than these small matrices
def predict_improvement(
    encoding: Encoding,
    pool: CostedChoices,
    ended: CostedChoices,
    stopped: CostedChoices,
    running: CostedChoices,
    metric_values: Numbers,
    noise: Numbers,
    front_size: int,
    rng: np.random.Generator,
) -> tuple[Numbers, float]:
    """Return the predicted gains of candidates in the front's hypervolume.

    Args:
        encoding: Encoding of the choices.
        pool: Candidates.
        ended: At least two ended trials, with all costs, those on the front first.
        stopped: Stopped trials, whose final metrics are predictions.
        running: Running trials.
        metric_values: Metrics of the ended, then of the stopped trials; higher is better.
        noise: Variance of these metrics beyond the common noise of a training.
        front_size: Number of ended trials on the front.
        rng: Random number generator.

    Returns:
        The expected growth of the hypervolume by each candidate, (candidates,), and the rank
        correlation of leave-one-out predictions with the observed metrics.
    """
    parts = [pool, ended, stopped, running]
    costs = [part.costs.copy() for part in parts]
    # a cost is only used as a feature of the metric if it is known for all choices
    is_known_cost = ~np.any([np.isnan(part_costs).any(0) for part_costs in costs], axis=0)
    rows = _standardize(
        [np.concatenate([encoding.encode(part.choices), part_costs[:, is_known_cost]], 1)
         for part, part_costs in zip(parts, costs, strict=True)], int(is_known_cost.sum()),
    )  # fmt: skip
    for column in np.flatnonzero(~is_known_cost):
        process = GaussianProcess(rows[1], costs[1][:, column], np.zeros(len(rows[1])), rng)
        for part_costs, part_rows in zip(costs, rows, strict=True):
            is_missing = np.isnan(part_costs[:, column])
            if is_missing.any():
                part_costs[is_missing, column] = process(part_rows[is_missing])[0]
    process = GaussianProcess(np.concatenate(rows[1:3]), metric_values, noise, rng)
    mean, spread = process(rows[0])
    # smoothed values, so that noise does not favour one of several equal models
    smoothed, _ = process(np.concatenate([rows[1], rows[3]]))
    points = np.column_stack([smoothed, np.concatenate([costs[1], costs[3]])])
    reference = _compute_reference(points[:front_size], points)
    gains = compute_expected_improvement(mean, spread, costs[0], points, reference)
    return gains, process.compute_correlation()


def _standardize(parts: Sequence[Numbers], squared_columns: int) -> list[Numbers]:
    """Return rows with mean 0 and standard deviation 1 in the first part, with added squares.

    Args:
        parts: Rows of each part; NaN becomes 0.
        squared_columns: Number of last columns whose squares are appended.
    """
    first = parts[0]
    missing = np.isnan(first)
    values, count = np.where(missing, 0.0, first), np.maximum(1, (~missing).sum(0))
    mean = values.sum(0) / count
    spread = np.sqrt((np.where(missing, 0.0, first - mean) ** 2).sum(0) / count)
    standardized = []
    for part in parts:
        rows = (part - mean) / np.where(spread > 1e-12, spread, np.inf)
        rows = np.where(np.isnan(rows), 0.0, rows)
        standardized.append(
            np.concatenate([rows, rows[:, rows.shape[1] - squared_columns :] ** 2], 1)
        )
    return standardized


def _compute_reference(front: Numbers, points: Numbers) -> Numbers:
    low, high = front[:, 0].min(), front[:, 0].max()
    spread = max(float(high - low), float(points[:, 0].std()), 1e-9)
    costs = points[:, 1:]
    worst = costs.max(0) + MARGIN * (costs.max(0) - costs.min(0))
    return np.concatenate([[low - MARGIN * spread], worst])


def compute_expected_improvement(
    mean: Numbers, spread: Numbers, costs: Numbers, front: Numbers, reference: Numbers
) -> Numbers:
    """Return the expected growth of the front's hypervolume by each candidate.

    Between two consecutive metric values of the front, a candidate adds a constant volume of costs:
    the volume that no member with at least the upper value dominates. The expectation is therefore
    a sum over these steps of this volume times the expected part of the step that a normally
    distributed metric reaches:

        sum_i V_i(c) (E max(0, q - h_i) - E max(0, q - h_(i+1)))

    This is exact for one cost; volumes of several costs are measured at quasi-random points.

    Args:
        mean: Mean of the predicted metric, higher is better, (candidates,).
        spread: Standard deviation of the predicted metric, (candidates,).
        costs: Known costs, lower is better, (candidates, costs), at least one cost.
        front: Members as (metric, *costs), (members, 1 + costs).
        reference: The reference point (metric, *costs).

    Returns:
        (candidates,), at least 0.

    Reference:
        Emmerich, Deutz & Klinkenberg 2011, "Hypervolume-based expected improvement: Monotonicity
        properties and exact computation"; here only one objective is random, which leaves the
        sum above.
    """
    members = front[front[:, 0] > reference[0]]
    levels = np.concatenate([reference[:1], np.sort(members[:, 0])])
    # (levels, candidates): the expected excess above each level
    excesses = np.array([_compute_expected_excess(mean, spread, level) for level in levels])
    steps = excesses - np.concatenate([excesses[1:], np.zeros((1, len(mean)))])
    return np.asarray((steps * _compute_volumes(costs, members, levels, reference[1:])).sum(0))


def _compute_expected_excess(mean: Numbers, spread: Numbers, level: float) -> Numbers:
    """Return E max(0, q - level) of normal q."""
    gap, scale = mean - level, np.maximum(spread, 1e-12)
    z = gap / scale
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.asarray(gap * ndtr(z) + scale * density)


def _compute_volumes(costs: Numbers, members: Numbers, levels: Numbers, worst: Numbers) -> Numbers:
    """Return the volume of costs that only a candidate dominates above each level, (levels, n)."""
    if costs.shape[1] == 1:
        lowest = [min(worst[0], *members[members[:, 0] > level, 1], np.inf) for level in levels]
        return np.maximum(0, np.array(lowest)[:, None] - costs[:, 0])
    low = np.minimum(costs.min(0), members[:, 1:].min(0, initial=np.inf))
    size = np.maximum(worst - low, 0)
    points = low + qmc.Sobol(costs.shape[1], seed=0).random(VOLUME_POINTS) * size
    is_inside = (costs[:, None] <= points).all(2)
    volumes = []
    for level in levels:
        better = members[members[:, 0] > level, 1:]
        is_dominated = (better[:, None] <= points).all(2).any(0)
        volumes.append(
            np.count_nonzero(is_inside & ~is_dominated, axis=1) * (size.prod() / VOLUME_POINTS)
        )
    return np.array(volumes)
