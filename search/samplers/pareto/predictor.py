"""What a quality is expected to be: a Gaussian process over choices and known costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import spearmanr

Numbers = npt.NDArray[np.float64]
FITTED = 128
"""Rows by which the kernel's parameters are fitted; all of them are predicted from."""
START = np.log([1.0, 1.0, 1.0, 3.0, 0.01])
BOUNDS = np.log([(1e-3, 1e3), (1e-4, 1e4), (1e-3, 1e3), (0.5, 50.0), (1e-5, 1.0)])
"""Of the logarithms of `Kernel`'s parameters, in its order."""
STEPS = 40
JITTER = 1e-8


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
