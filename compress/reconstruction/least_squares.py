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
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.device import limit_blas_threads
from compress.reconstruction.sums import (
    WIDE,
    Clip,
    Moments,
    Numbers,
    Sample,
    StoredRows,
    Sums,
    map_blocks,
    multiply_transposed,
)

Flags = npt.NDArray[np.bool_]
RIDGES = tuple(10.0**-power for power in range(1, 9))
"""Candidate ridges, relative to the diagonal of P'P."""
WARM_STEPS, COLD_STEPS = 30, 300
"""Maximum conjugate gradient iterations from a nearby solution and from zero."""
FIRST_RIDGE = 2
"""Index of the first ridge that is tried: 1e-3."""
DEAD_NORM = 1e-9
"""Norm of a column, relative to the largest, below which the column is ignored. It is small because
inputs of very different scales (1e4 and 1e-2, for example) all matter."""
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
                change = [_solve_by_rows(p, t, ridge, noise, mask) for p, t, mask in systems]
            elif self.support is None:
                change = [*_solve_systems(_add_ridge(a, ridge), residual)]
            else:
                parts = zip(_add_ridge(a, ridge), residual, self.support, strict=True)
                change = [_solve_on_support(*system) for system in parts]
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
        regular = _add_ridge(a, ridge)
        self.scale = 1 / np.sqrt(np.einsum("sdd->sd", regular))
        self.scaled = regular * self.scale[:, :, None] * self.scale[:, None]
        if problem.support is None and len(self.scaled) == 1:
            with _use_cores(self.scaled):
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
            changes = np.stack([_refine_on_support(*system) for system in parts])
        elif len(self.scaled) == 1:
            with _use_cores(self.scaled):
                changes = scipy.linalg.cho_solve(self.factor, right_side[0])[None]
        else:
            changes = _solve_systems(self.scaled, right_side)
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


def _refine_on_support(a: Numbers, b: Numbers, support: Flags, start: Numbers) -> Numbers:
    """Solve a x = b on supports for all outputs at once, by conjugate gradients from `start`."""
    residual = (b - a @ start) * support
    return _solve_conjugate_gradients(lambda x: (a @ x) * support, residual, WARM_STEPS) + start


def _add_ridge(a: Numbers, ridge: float) -> Numbers:
    """Return the matrix plus ridge; columns that are always zero get 1 and keep their weights."""
    diagonal = np.einsum("sdd->sd", a)
    dead = diagonal <= DEAD_NORM**2 * np.maximum(diagonal.max(1, keepdims=True), 1e-280)
    regular = a.copy()
    np.einsum("sdd->sd", regular)[:] = np.where(dead, 1.0, diagonal * (1 + ridge))
    alive = ~dead
    regular *= alive[:, :, None] & alive[:, None]
    np.einsum("sdd->sd", regular)[:] += dead
    return regular


def _use_cores(matrices: Numbers) -> AbstractContextManager[None]:
    """Return a context in which the linear algebra of large matrices runs on all cores."""
    return limit_blas_threads() if matrices.shape[1] >= WIDE else nullcontext()


def _solve_systems(regular: Numbers, right_side: Numbers) -> Numbers:
    """Solve positive definite systems: several at once by LU, else each by Cholesky.

    If that fails, they are solved by least squares.
    """
    import scipy.linalg

    # a unit diagonal keeps the precision for inputs of mixed scale
    scale = 1 / np.sqrt(np.einsum("sdd->sd", regular))
    scaled = regular * scale[:, :, None] * scale[:, None]
    scaled_right = right_side * scale[:, :, None]
    if len(scaled) > 1:
        try:
            return np.asarray(np.linalg.solve(scaled, scaled_right) * scale[:, :, None])
        except np.linalg.LinAlgError:
            pass
    solution = np.empty_like(scaled_right)
    for system, (matrix, values) in enumerate(zip(scaled, scaled_right, strict=True)):
        try:
            with _use_cores(scaled):
                factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
                solution[system] = scipy.linalg.cho_solve(factor, values, check_finite=False)
        except scipy.linalg.LinAlgError:
            solution[system] = scipy.linalg.lstsq(matrix, values, check_finite=False)[0]
    return np.asarray(solution * scale[:, :, None])


def _solve_on_support(regular: Numbers, right_side: Numbers, support: Flags) -> Numbers:
    """Solve each output on its own support; outputs with the same support share a factorization."""
    solution = np.zeros_like(right_side)
    patterns, pattern_index = np.unique(support.T, axis=0, return_inverse=True)
    order = np.argsort(pattern_index.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(pattern_index.ravel()))[:-1])
    for pattern, outputs in zip(patterns, groups, strict=True):
        inside = np.flatnonzero(pattern)
        if len(inside):
            group_solution = _solve_systems(
                regular[np.ix_(inside, inside)][None], right_side[np.ix_(inside, outputs)][None]
            )
            solution[np.ix_(inside, outputs)] = group_solution[0]
    return solution


def _solve_by_rows(
    p: Numbers, residual: Numbers, ridge: float, noise: float, support: Flags | None
) -> Numbers:
    """Return the change of one system's weights in the form for fewer rows than columns."""
    squares = (p**2).sum(0)
    alive = squares > DEAD_NORM**2 * max(float(squares.max()), 1e-280)
    scale = alive / np.sqrt(np.where(alive, squares + noise / ridge, 1))
    scaled = p * scale
    if support is None:
        products = scaled @ scaled.T
        products[np.diag_indices_from(products)] += ridge
        return np.asarray(
            scale[:, None] * (scaled.T @ _solve_systems(products[None], residual[None])[0])
        )
    # factoring each of thousands of supports would cost far more than conjugate gradients
    change = _solve_conjugate_gradients(
        lambda x: (scaled.T @ (scaled @ x)) * support + ridge * x,
        (scaled.T @ residual) * support,
        COLD_STEPS,
    )
    return np.asarray(scale[:, None] * change)


def _solve_conjugate_gradients(
    multiply: Callable[[Numbers], Numbers], residual: Numbers, max_steps: int
) -> Numbers:
    """Solve multiply(x) = residual for all outputs at once, by conjugate gradients from zero."""
    solution = np.zeros_like(residual)
    direction = residual.copy()
    size = (residual**2).sum(0)
    stop = 1e-12 * size
    for _ in range(max_steps):
        product = multiply(direction)
        curve = (direction * product).sum(0)
        step = np.where(curve > 0, size / np.where(curve > 0, curve, 1), 0)
        solution += step * direction
        residual -= step * product
        new_size = (residual**2).sum(0)
        if np.all(new_size <= stop):
            break
        direction = (
            residual + np.where(size > 0, new_size / np.where(size > 0, size, 1), 0) * direction
        )
        size = new_size
    return solution
