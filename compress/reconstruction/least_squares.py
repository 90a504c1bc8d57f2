"""Ridge regression towards the current weights, with NumPy and SciPy.

All arrays have a leading axis of systems that share no weights. With rows P, targets T, the current
weights W0 and the ridge L = r diag(P'P):

    W = W0 + (P'P + L)^-1 P'(T - P W0)               P, T centred if the shift is free

The variance of the noise in the rows, times their number, is added to the diagonal of P'P, so it
acts like a part of the ridge.

Masked weights are restricted to their support, output by output. With fewer rows than columns, the
equivalent form W0 + D P~'(P~ P~' + r I)^-1 (T - P W0) is used, with P~ = P D, D = diag(P'P)^-1/2.

The ridge is chosen on held-out examples, which also decide whether the solution is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compress.reconstruction.linear_systems import (
    Flags,
    add_ridge,
    refine_on_support,
    solve_by_rows,
    solve_on_support,
    solve_systems,
    use_cores,
)
from compress.reconstruction.row_products import Numbers, map_blocks, multiply_transposed
from compress.reconstruction.sums import Clip, Moments, Sample, StoredRows, Sums

RIDGES = tuple(10.0**-power for power in range(1, 9))
"""Candidate ridges, relative to the diagonal of P'P."""
FIRST_RIDGE = 2
"""Index of the first ridge that is tried: 1e-3."""
MAX_ROUNDS = 20
"""Maximum number of updates of the targets that an activation clips."""
EXACT_ERROR = 1e-10
"""Relative error below which a layer counts as exact; float32 rounding gives about 1e-13."""
MIN_GAIN = 0.005
"""Minimum relative reduction of the error; the updates stop below it."""
TARGET_NUMBERS, MIN_TARGET_ROWS = 2**19, 512
"""Approximate number of elements that an update of these targets handles at once, few enough for a
processor's cache, and its minimum number of rows, for which adding up the products is cheap."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A regression towards the current weights, with an optional support and a free or fixed shift.

    Attributes:
        initial: Current weights W0, (systems, columns, outputs).
        support: True where weights may differ from zero; None: everywhere.
        fixed_shift: Constant added to the outputs, (systems, outputs); None: the shift is free.
    """

    initial: Numbers
    support: Flags | None = None
    fixed_shift: Numbers | None = None

    def solve(self, sums: Sums, ridge: float) -> tuple[Numbers, Numbers]:
        """Return weights and shift.

        Args:
            sums: Sums over rows and targets.
            ridge: Relative to the diagonal.
        """
        return self.prepare(sums)(ridge)

    def prepare(self, sums: Sums) -> Callable[[float], tuple[Numbers, Numbers]]:
        """Return a function that returns weights and shift for a ridge.

        Args:
            sums: Sums over rows and targets.
        """
        noise = sums.count * sums.noise
        if isinstance(sums, StoredRows):
            rows, targets = sums.stacked
            if self.fixed_shift is None:
                rows, targets = rows - rows.mean(1)[:, None], targets - targets.mean(1)[:, None]
            else:
                targets = targets - self.fixed_shift[:, None]
            residual = targets - rows @ self.initial
        else:
            a, b, _ = (
                sums.compute_centred()
                if self.fixed_shift is None
                else sums.compute_raw(self.fixed_shift)
            )
            residual = b - a @ self.initial + noise * self.initial

        def solve(ridge: float) -> tuple[Numbers, Numbers]:
            if isinstance(sums, StoredRows):
                supports = [None] * len(residual) if self.support is None else self.support
                systems = zip(rows, residual, supports, strict=True)
                change = [solve_by_rows(p, t, ridge, noise, mask) for p, t, mask in systems]
            elif self.support is None:
                change = [*solve_systems(add_ridge(a, ridge), residual)]
            else:
                parts = zip(add_ridge(a, ridge), residual, self.support, strict=True)
                change = [solve_on_support(*system) for system in parts]
            weights = self.initial + np.stack(change)
            return weights, self.compute_shift(sums, weights)

        return solve

    def compute_shift(self, sums: Sums, weights: Numbers) -> Numbers:
        """Return the shift that matches the means of the targets, or the fixed shift."""
        if self.fixed_shift is not None:
            return self.fixed_shift
        p, t = sums.means
        return np.asarray(t - np.einsum("sd,sdm->sm", p, weights))


@dataclass(frozen=True, eq=False)
class Fit:
    """Fitted weights and shift of a layer, with their held-out errors.

    Attributes:
        weights, shift: Solution with the best ridge, for all rows (`fit_weights`) or for the
            training rows (`fit_on_grid`).
        ridge: Relative to the diagonal; 0 if the layer was already exact.
        before, after: Held-out errors relative to the spread of the targets, one per call; `after`
            is measured for the solution without the held-out rows.
        sums: Sums over the rows of the solution; None if the layer was already exact.
    """

    weights: Numbers
    shift: Numbers
    ridge: float
    before: tuple[float, ...]
    after: tuple[float, ...]
    sums: Sums | None = None

    @property
    def is_better(self) -> bool:
        """Whether no call has a larger error and the total error decreased."""
        worse = any(a > b for b, a in zip(self.before, self.after, strict=True))
        return not worse and sum(self.after) < sum(self.before)


def fit_weights(
    problem: Problem,
    train: Sample,
    held_out: Sequence[Sample],
    current_shift: Numbers,
    clip: Clip | None,
) -> Fit:
    """Solve a problem with the ridge that has the lowest held-out error.

    If an activation clips the outputs, errors that it hides do not matter. Starting from the linear
    solution, the targets are then updated as long as the held-out error after the activation
    decreases.

    Args:
        problem: The regression problem.
        train: Training rows of all calls.
        held_out: Held-out rows, one sample per call.
        current_shift: Current shift, (systems, outputs).
        clip: Clipping activation after the layer; None: there is none.

    Returns:
        The solution and its errors.
    """
    bounds = clip or Clip(-np.inf, np.inf)
    if all(
        bounds.measure_error(replace(held_out_part, noise=0.0), problem.initial, current_shift)
        < EXACT_ERROR
        for held_out_part in held_out
    ):
        zeros = (0.0,) * len(held_out)
        return Fit(problem.initial, current_shift, 0.0, zeros, zeros)
    sums = train.compute_sums()
    holdout = Holdout(held_out, sums, clip)
    ridge, after, trial = select_ridge(problem, sums, holdout)
    all_sums: Any = sum(holdout.sums, sums)
    before = holdout.measure_clipped_errors(problem.initial, current_shift)
    solution = None
    if clip is not None:
        after = holdout.measure_clipped_errors(*trial)
        if isinstance(sums, Moments):
            equations = NormalEquations(train, sums, problem, ridge, clip)
            for _ in range(MAX_ROUNDS):
                candidate = equations.solve(*(solution or trial))
                errors = holdout.measure_clipped_errors(*candidate)
                if not sum(errors) < sum(after) * (1 - MIN_GAIN):
                    break
                after, solution = errors, candidate
        if solution is not None:  # nearly final: once more with the held-out rows
            sample = Sample.concat([train, *held_out])
            solution = NormalEquations(sample, all_sums, problem, ridge, clip).solve(*solution)
    return Fit(*(solution or problem.solve(all_sums, ridge)), ridge, before, after, all_sums)


def select_ridge(
    problem: Problem, sums: Sums, holdout: Holdout
) -> tuple[float, tuple[float, ...], tuple[Numbers, Numbers]]:
    """Return the ridge with the lowest held-out error, its errors by call, and its solution.

    The search starts at 1e-3 and moves to neighbouring ridges while the error decreases. Errors are
    measured before the activation.

    Args:
        problem: The regression problem.
        sums: Sums over the training rows.
        holdout: Held-out rows.
    """
    errors: dict[int, tuple[float, ...]] = {}
    solutions: dict[int, tuple[Numbers, Numbers]] = {}
    best, solve = FIRST_RIDGE, problem.prepare(sums)

    def sum_errors(index: int) -> float:
        if index not in errors:
            solutions[index] = solve(RIDGES[index])
            errors[index] = holdout.measure_errors(*solutions[index])
        total = sum(errors[index])
        return total if np.isfinite(total) else np.inf

    for step in (1, -1):
        while 0 <= best + step < len(RIDGES) and sum_errors(best + step) < sum_errors(best):
            best += step
    return RIDGES[best], errors[best], solutions[best]


class Holdout:
    """Held-out rows and the errors of solutions on them.

    Args:
        samples: One sample per call.
        reference: Sums over the training rows.
        clip: Clipping activation after the layer; None: there is none.

    Attributes:
        sums: Sums over the held-out rows, one per call.
    """

    def __init__(self, samples: Sequence[Sample], reference: Sums, clip: Clip | None) -> None:
        self.samples, self.clip = samples, clip
        self.sums = [part.compute_sums(reference) for part in samples]
        self._units = [float(part.compute_spread().sum()) or 1.0 for part in self.sums]

    def measure_errors(self, weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        """Return the squared errors relative to the spread of the targets, one per call."""
        return tuple(
            float(part.compute_errors(weights, shift).sum()) / unit
            for part, unit in zip(self.sums, self._units, strict=True)
        )

    def measure_clipped_errors(self, weights: Numbers, shift: Numbers) -> tuple[float, ...]:
        """Return the relative squared errors after the activation, one per call."""
        if self.clip is None:
            return self.measure_errors(weights, shift)
        return tuple(self.clip.measure_error(part, weights, shift) for part in self.samples)


class NormalEquations:
    """Normal equations prepared once for targets that a clipping activation leaves free.

    Without a support they are factored. With a support each solution is computed by conjugate
    gradients from the previous one, because the targets change little.

    Args:
        sample: Rows and targets.
        sums: Sums over them.
        problem: The regression problem.
        ridge: Relative to the diagonal.
        clip: The clipping activation.
    """

    def __init__(
        self, sample: Sample, sums: Moments, problem: Problem, ridge: float, clip: Clip
    ) -> None:
        import scipy.linalg

        self.sample = replace(sample, targets=clip.mark_hidden(sample))
        self.problem, self.clip, (self.means, target_means) = problem, clip, sums.means
        shift = problem.fixed_shift
        # in single precision large means would hide small spreads
        self.offset = (target_means if shift is None else shift).astype(np.float32)
        a = (sums.compute_centred() if shift is None else sums.compute_raw(np.zeros_like(shift)))[0]
        # what the current weights leave of targets of zero
        self.residual = (sums.count * sums.noise) * problem.initial - a @ problem.initial
        regular = add_ridge(a, ridge)
        self.scale = 1 / np.sqrt(np.einsum("sdd->sd", regular))
        self.scaled = regular * self.scale[:, :, None] * self.scale[:, None]
        if problem.support is None and len(self.scaled) == 1:
            with use_cores(self.scaled):
                self.factor = scipy.linalg.cho_factor(self.scaled[0], lower=True)

    def solve(self, weights: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return weights and shift for the targets nearest to the outputs of a solution.

        Args:
            weights, shift: The solution.
        """
        import scipy.linalg

        before, problem = self.problem.initial, self.problem
        products, target_sums = self._sum_targets(weights, shift)
        right_side = products + self.residual
        if problem.fixed_shift is None:
            right_side -= self.means[:, :, None] * target_sums[:, None]
        right_side *= self.scale[:, :, None]
        if problem.support is not None:
            start = (weights - before) / self.scale[:, :, None]
            parts = zip(self.scaled, right_side, problem.support, start, strict=True)
            changes = np.stack([refine_on_support(*system) for system in parts])
        elif len(self.scaled) == 1:
            with use_cores(self.scaled):
                changes = scipy.linalg.cho_solve(self.factor, right_side[0])[None]
        else:
            changes = solve_systems(self.scaled, right_side)
        weights = before + changes * self.scale[:, :, None]
        if problem.fixed_shift is not None:
            return weights, problem.fixed_shift
        mean = self.offset + target_sums / len(self.sample)
        return weights, mean - np.einsum("sd,sdm->sm", self.means, weights)

    def _sum_targets(self, weights: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return the sums over rows of rows x targets and of targets, the targets minus offsets."""
        sample, offset = self.sample, self.offset.reshape(-1)
        systems, count, columns = sample.rows.shape
        kernel = weights.astype(np.float32)

        def sum_block(part: slice) -> tuple[Numbers, Numbers]:
            rows = sample.take_rows(part)
            outputs = rows.predict(kernel, shift)
            targets = self.clip.compute_targets(rows.targets, outputs, rows.base) - offset
            return multiply_transposed(rows.rows, targets), targets.sum(0, dtype=np.float64)

        products, sums = np.zeros_like(weights), np.zeros(offset.shape)
        block = max(MIN_TARGET_ROWS, TARGET_NUMBERS // (systems * columns + 3 * len(offset)))
        for block_products, block_sums in map_blocks(sum_block, count, block, products.nbytes):
            products += block_products
            sums += block_sums
        return products, sums.reshape(self.offset.shape)
