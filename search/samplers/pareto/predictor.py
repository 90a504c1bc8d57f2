"""What a quality is expected to be: a Gaussian process over choices and known costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import CategoricalDistribution
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import spearmanr

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

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


class Predictor:
    """A Gaussian process whose kernel is fitted to what was told.

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
        """Returns mean and spread of the quality itself, without the noise of telling it."""
        across = self.kernel(rows, self._rows)
        known = solve_triangular(self._factor[0], across.T, lower=True)
        prior = self.kernel.diagonal(rows)
        variance = np.maximum(prior - (known**2).sum(0), 1e-12 * prior)
        mean = across @ self._alpha
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def correlation(self) -> float:
        """Returns the rank correlation of what was told with what the others say of it."""
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
        """Returns k of all pairs, without the noise."""
        products = one @ two.T
        squares = (one**2).sum(1)[:, None] + (two**2).sum(1) - 2 * products
        smooth = np.exp(-np.maximum(squares, 0) / (2 * self.length**2))
        return np.asarray(self.a * (self.b + products) + self.c * smooth)

    def diagonal(self, rows: Numbers) -> Numbers:
        """Returns k of each row with itself, without the noise."""
        return np.asarray(self.a * (self.b + (rows**2).sum(1)) + self.c)


def fitted(rows: Numbers, y: Numbers, extra: Numbers) -> Kernel:
    """Returns the kernel under which what was told is the most likely.

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
        self._numbers: dict[str, int] = {}
        self._logs: set[str] = set()
        self._values: dict[str, dict[str, int]] = {}
        self._counted: dict[str, dict[str, int]] = {}
        self.columns = 0
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, item in distributions.items():
            if item.single():
                continue
            if not isinstance(item, CategoricalDistribution):
                self._numbers[name] = self._column()
                if getattr(item, "log", False):
                    self._logs.add(name)
                continue
            if numeric(item.choices):
                self._numbers[name] = self._column()
            if len(item.choices) <= MOST_VALUES:
                keys = tuple(map(repr, item.choices))
                self._values[name] = {key: self._column() for key in keys}
                alike.setdefault(keys, []).append(name)
        for keys, names in alike.items():
            if len(names) > 1:
                places = {key: self._column() for key in keys}
                self._counted |= dict.fromkeys(names, places)

    def _column(self) -> int:
        self.columns += 1
        return self.columns - 1

    def rows(self, many: Sequence[Mapping[str, Any]]) -> Numbers:
        """Returns (choices, columns); NaN where a number was not asked."""
        found = np.zeros((len(many), self.columns))
        found[:, list(self._numbers.values())] = np.nan
        for row, chosen in zip(found, many, strict=True):
            for name, value in chosen.items():
                if name in self._numbers:
                    number = float(value)
                    row[self._numbers[name]] = math.log(number) if name in self._logs else number
                place = self._values.get(name, {}).get(repr(value))
                if place is not None:
                    row[place] = 1.0
                if name in self._counted:
                    row[self._counted[name][repr(value)]] += 1.0
        return found


def numeric(values: Sequence[Any]) -> bool:
    """Tells whether categories are at least three numbers: they have an order then."""
    return len(values) > 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )
