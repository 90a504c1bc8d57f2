"""The curvature of a kernel, as if all its outputs saw the same: moments of rows, and weights.

Of outputs o with weights a of rows p, sum_n a_no p_n p_n' is taken for mean_n(a_no) sum_n p_n p_n'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.reconstruction.rows import Numbers, Singles, gram

LEAST = 1e-6
"""Added to the diagonal, relative to its mean: what no row holds stays where it is."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """The moments of a kernel's rows and of a constant behind them, damped and inverted.

    Attributes:
        inverse: (systems, columns + 1, columns + 1).
        diagonal: Of the moments, (systems, columns + 1).
        weights: Of the outputs, (systems, outputs).
        noise: Sum over rows of the variance of noise in each of their numbers.

    Reference:
        Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature", section 3; here it only preconditions.
    """

    inverse: Numbers
    diagonal: Numbers
    weights: Numbers
    noise: float

    @classmethod
    def of(cls, rows: Singles, weights: Singles, damping: float, noise: float) -> Curvature:
        """Measure it.

        Args:
            rows: (systems, rows, columns).
            weights: Of each row in each output, (rows, channels), at least 0.
            damping: Share of the diagonal that is added to it.
            noise: Variance of independent noise in each number of the rows.
        """
        systems, count, columns = rows.shape
        moments = np.empty((systems, columns + 1, columns + 1))
        moments[:, :-1, :-1] = gram(rows)
        moments[:, :-1, -1] = moments[:, -1, :-1] = rows.sum(1, dtype=np.float64)
        moments[:, -1, -1] = count
        np.einsum("sdd->sd", moments)[:, :-1] += count * noise
        diagonal = np.einsum("sdd->sd", moments).copy()
        diagonal += LEAST * diagonal.mean() + 1e-30
        np.einsum("sdd->sd", moments)[:] = (1 + damping) * diagonal
        each = weights.mean(0, dtype=np.float64).reshape(systems, -1)
        each = np.maximum(each, 1e-3 * each.mean() + 1e-30)
        return cls(np.linalg.inv(moments), diagonal, each, count * noise)

    def solved(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Returns what curvature makes these of: kernel (systems, columns, outputs), shift."""
        both = np.concatenate([kernel, shift.reshape(len(kernel), 1, -1)], 1)
        found = self.inverse @ both / self.weights[:, None]
        return found[:, :-1], found[:, -1].reshape(-1)

    def scaled(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Returns them times the diagonal of the curvature."""
        by = self.diagonal[:, :, None] * self.weights[:, None]
        return kernel * by[:, :-1], shift * by[:, -1].reshape(-1)

    def times_noise(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return them times the curvature of the error that noise in the rows makes."""
        return self.noise * kernel * self.weights[:, None], np.zeros_like(shift)
