"""Rounding of weights to an integer grid, with compensation of the rounding errors.

Weights are rounded one after the other so that the layer's outputs change little, or each to the
nearest grid value if that is no worse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compress.reconstruction.least_squares import Fit, Holdout, Problem, select_ridge
from compress.reconstruction.linear_systems import Flags
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sums import Clip, Moments, Sample, Sums

BLOCK = 128
"""Columns that are rounded before their errors are propagated to all other columns."""
DAMPING = 1e-2
"""Share of the diagonal added to it: it limits the changes that compensate for rounding."""
MIN_STEP_SHARE, STEP_TRIALS = 0.5, 26
"""Smallest step relative to the widest one, and the number of steps that are tried."""
MAX_NARROWINGS = 3
"""Maximum number of roundings in which a grid is narrowed if no weight has its last value."""


def fit_on_grid(
    problem: Problem,
    train: Sample,
    held_out: Sequence[Sample],
    current_shift: Numbers,
    clip: Clip | None,
    grid_max: int,
) -> Fit:
    """Reconstruct a layer's weights and round them to a grid.

    Args:
        problem: The regression problem.
        train: Training rows of all calls.
        held_out: Held-out rows, one sample per call; they choose the ridge and measure the errors.
        current_shift: Current shift, (systems, outputs).
        clip: Clipping activation after the layer; None: there is none.
        grid_max: Largest integer of the grid, at least 1.

    Returns:
        The fit to the training rows; `before` is the error of rounding the current weights to the
        nearest values.
    """
    sums = train.compute_sums()
    holdout = Holdout(held_out, sums, clip)
    ridge, _, (solution, _) = select_ridge(problem, sums, holdout)
    weights = round_weights(
        compute_products(sums, problem.fixed_shift is None), solution, grid_max, problem.support
    )
    shift = problem.compute_shift(sums, weights)
    before = holdout.measure_clipped_errors(
        round_to_nearest(problem.initial, grid_max), current_shift
    )
    return Fit(weights, shift, ridge, before, holdout.measure_clipped_errors(weights, shift), sums)


def round_weights(
    products: Numbers, weights: Numbers, grid_max: int, support: Flags | None = None
) -> Numbers:
    """Return weights on a grid per output that approximate the outputs of the given weights.

    The step minimizes the error of rounding and clipping, each column weighted by its inputs.
    Columns are then rounded in turn, those with the largest inputs first, and the remaining columns
    compensate for each error. One weight of each output has the last value of its grid, so that a
    quantizer that uses the largest weight finds the same grid.

    Args:
        products: P'P of the rows, (systems, columns, columns).
        weights: (systems, columns, outputs).
        grid_max: Largest integer of the grid, at least 1.
        support: True where weights may differ from zero, in the shape of the weights; None:
            everywhere.

    Returns:
        Integers times steps, in the shape of the weights.

    Reference:
        Frantar et al. 2023, "GPTQ", equations 2 and 3 with the Cholesky form of section 3.3, in the
        order of the diagonal. Differences: the grid is fitted first, and one weight has its last
        value.
    """
    rounded_weights = np.empty_like(weights)
    for system, (square, values) in enumerate(zip(products, weights, strict=True)):
        damped, diagonal = square.copy(), np.diag(square)
        # also relative to the mean, or a column with tiny inputs would absorb all errors
        extra = DAMPING * np.maximum(diagonal, diagonal.mean())
        # a column that is always zero gets 1: it depends on no other
        damped[np.diag_indices_from(damped)] += np.where(extra > 0, extra, 1.0)
        mask = None if support is None else support[system]
        rounded_weights[system] = _round_system(damped, values, grid_max, mask)
    return rounded_weights


def round_to_nearest(weights: Numbers, grid_max: int) -> Numbers:
    """Return the nearest values on the grid that ends at each output's largest weight.

    This is the result of quantizers that use only the weights.

    Args:
        weights: (systems, columns, outputs).
        grid_max: Largest integer of the symmetric grid, such as 7 for int4.
    """
    step = _compute_widest_step(weights, grid_max)
    return _round_to_integers(weights, step, grid_max) * step


def compute_products(sums: Sums, can_shift: bool) -> Numbers:
    """Return the products of rows, (systems, columns, columns).

    Args:
        sums: Sums over rows and targets.
        can_shift: Whether a constant shift of the outputs is free: the products are centred then.
    """
    if isinstance(sums, Moments):
        products = (
            sums.compute_centred()[0]
            if can_shift
            else sums.compute_raw(np.zeros_like(sums.sums[1]))[0]
        )
        return np.asarray(products)
    rows = sums.stacked[0] - (sums.means[0][:, None] if can_shift else 0)
    return np.asarray(rows.transpose(0, 2, 1) @ rows)


def _round_system(
    products: Numbers, weights: Numbers, grid_max: int, support: Flags | None
) -> Numbers:
    """Round one system's weights, (columns, outputs)."""
    factor, order = _factor_inverse(products)
    step = _fit_steps(np.diag(products), weights, grid_max)
    integers = np.zeros_like(weights)
    # outputs with no weight on the last value of their grid yet
    unfilled = np.flatnonzero(np.any(weights != 0, 0))
    for _ in range(MAX_NARROWINGS):
        mask = None if support is None else support[:, unfilled]
        integers[:, unfilled] = _round_in_order(
            factor, order, weights[:, unfilled], step[unfilled], grid_max, mask
        )
        largest = np.abs(integers).max(0)
        unfilled = unfilled[largest[unfilled] < grid_max]
        if not len(unfilled):
            break
        step[unfilled] *= np.maximum(largest[unfilled], 1) / grid_max
    result = np.asarray(integers * step)
    # the nearest values use the last one, by the largest weight
    result[:, unfilled] = round_to_nearest(weights[None, :, unfilled], grid_max)[0]
    return result


def _round_in_order(
    factor: Numbers,
    order: npt.NDArray[np.int64],
    weights: Numbers,
    step: Numbers,
    grid_max: int,
    support: Flags | None,
) -> Numbers:
    """Return the integers of the rounded weights, (columns, outputs).

    Args:
        factor: Upper triangular Cholesky factor of the inverse, columns in order.
        order: Order of the columns.
        weights: (columns, outputs).
        step: Step of each output's grid, (outputs,).
        grid_max: Largest integer of the grid.
        support: True where weights may differ from zero; None: everywhere.
    """
    remaining = weights[order]
    free = None if support is None else support[order]
    integers = np.zeros_like(remaining)
    columns = len(order)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty((stop - start, remaining.shape[1]))
        for column in range(start, stop):
            integers[column] = _round_to_integers(remaining[column], step, grid_max)
            rounding_error = remaining[column] - integers[column] * step
            errors[column - start] = rounding_error / factor[column, column]
            change = np.outer(factor[column, column + 1 : stop], errors[column - start])
            _subtract_change(remaining, slice(column + 1, stop), change, free)
        _subtract_change(
            remaining, slice(stop, columns), factor[start:stop, stop:].T @ errors, free
        )
    result = np.empty_like(integers)
    result[order] = integers
    return result


def _subtract_change(remaining: Numbers, rows: slice, change: Numbers, free: Flags | None) -> None:
    remaining[rows] -= change if free is None else change * free[rows]


def _factor_inverse(products: Numbers) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Return U with (P'P)^-1 = U'U, columns ordered by the diagonal, and that order."""
    import scipy.linalg

    order = np.argsort(-np.diag(products), kind="stable")
    # the inverse of the factor of the reversed matrix is U in reversed order
    reversed_products = products[np.ix_(order[::-1], order[::-1])]
    lower = scipy.linalg.cholesky(reversed_products, lower=True, check_finite=False)
    inverse = scipy.linalg.solve_triangular(
        lower, np.eye(len(lower)), lower=True, check_finite=False
    )
    return np.ascontiguousarray(inverse[::-1, ::-1]), order


def _compute_widest_step(weights: Numbers, grid_max: int) -> Numbers:
    """Return the step of the grid that ends at the largest weight, (..., 1, outputs)."""
    largest = np.abs(weights).max(-2, keepdims=True)
    return np.asarray(np.where(largest > 0, largest, 1.0) / grid_max)


def _round_to_integers(weights: Numbers, step: Numbers, grid_max: int) -> Numbers:
    return np.asarray(np.clip(np.round(weights / step), -grid_max, grid_max))


def _fit_steps(inputs: Numbers, weights: Numbers, grid_max: int) -> Numbers:
    """Return each output's step with the lowest error of rounding and clipping, (outputs,).

    Args:
        inputs: Weight of each column, (columns,).
        weights: (columns, outputs).
        grid_max: Largest integer of the grid.
    """
    widest_step = _compute_widest_step(weights, grid_max)
    best_step, best_error = widest_step[0], np.full(weights.shape[1], np.inf)
    for share in np.linspace(1.0, MIN_STEP_SHARE, STEP_TRIALS):
        step = widest_step * share
        error: Numbers = (
            inputs @ (weights - _round_to_integers(weights, step, grid_max) * step) ** 2
        )
        best_step = np.where(error < best_error, step[0], best_step)
        best_error = np.minimum(error, best_error)
    return np.asarray(best_step)
