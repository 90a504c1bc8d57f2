"""Weights on a grid of whole numbers: rounded one after the other, the rest makes up for each.

A layer's weights are rounded so that its outputs stay, or where that is no better each to the
nearest value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compress.reconstruction.least_squares import Fit, Flags, Judges, Problem, best_ridge
from compress.reconstruction.sums import Clip, Moments, Numbers, Sample, Sums

BLOCK = 128
"""Columns that are rounded before what they leave goes into all others."""
DAMPING = 1e-2
"""Of the diagonal: what makes up for a weight stays small."""
NARROWEST, TRIED = 0.5, 26
"""Steps are narrowed to this share of the usual one at most, in so many tries."""
TIMES = 3
"""How often a grid is narrowed whose last value no weight has."""


def on_grid(
    problem: Problem,
    train: Sample,
    held: Sequence[Sample],
    now: Numbers,
    clip: Clip | None,
    most: int,
) -> Fit:
    """Solve for a layer's weights and rounds them.

    Args:
        problem: What is solved.
        train: Rows that are solved on, of all calls.
        held: Rows held back, call by call: they choose the ridge, and judge.
        now: The shift as it is, (systems, outputs).
        clip: The activation behind the layer, where it cuts off: what it hides is no error.
        most: The largest whole number of the grid.

    Returns:
        The fit; `before` is of the nearest values.
    """
    sums = train.sums()
    judges = Judges(held, sums, clip)
    ridge, _ = best_ridge(problem, sums, judges)
    solved = problem.solved(sums, ridge)[0]
    weights = rounded(products_of(sums, problem.shift is None), solved, most, problem.support)
    shift = problem.shift_of(sums, weights)
    before = judges.behind(nearest(problem.before, most), now)
    return Fit(weights, shift, ridge, before, judges.behind(weights, shift), sums)


def rounded(
    products: Numbers, weights: Numbers, most: int, support: Flags | None = None
) -> Numbers:
    """Return weights on a grid of each output's own whose outputs are near those of weights.

    The step is the one that loses least to rounding and to cutting off, each column counted by
    what its inputs are. Then columns are rounded in turn, those of the largest inputs first, and
    those that are left make up for what each lost. Of each output one weight is the grid's last
    value, so that a quantizer that takes the largest for the end finds the same grid.

    Args:
        products: P'P of the rows that the weights are multiplied with, (systems, columns,
            columns).
        weights: (systems, columns, outputs).
        most: The largest whole number of the grid, at least 1.
        support: Where weights may differ from zero, shaped as they are; None: everywhere.

    Returns:
        Whole numbers times steps, shaped as the weights.

    Reference:
        Frantar et al. 2023, "GPTQ", equations 2 and 3 with its Cholesky form (section 3.3), in
        the order of the diagonal. Ours: the grid is fitted first, and holds its own end.
    """
    found = np.empty_like(weights)
    for system, (square, values) in enumerate(zip(products, weights, strict=True)):
        damped, diagonal = square.copy(), np.diag(square)
        # relative to the mean as well: a column of hardly any input would make up for everything
        extra = DAMPING * np.maximum(diagonal, diagonal.mean())
        # a column that is always zero is alone, and worth nothing
        damped[np.diag_indices_from(damped)] += np.where(extra > 0, extra, 1.0)
        mask = None if support is None else support[system]
        found[system] = _rounded(damped, values, most, mask)
    return found


def nearest(weights: Numbers, most: int) -> Numbers:
    """Return the nearest values of the grid that reaches to each output's largest weight.

    What quantizers do that look at nothing but the weights.

    Args:
        weights: (systems, columns, outputs).
        most: The largest whole number, such as 7: of four bits, as many on both sides of zero.
    """
    step = _widest(weights, most)
    return _whole(weights, step, most) * step


def products_of(sums: Sums, free: bool) -> Numbers:
    """Return the products of rows, (systems, columns, columns).

    Args:
        sums: Of rows and targets.
        free: Whether a constant shift of the outputs is taken up: products are about the means.
    """
    if isinstance(sums, Moments):
        found = sums.centred()[0] if free else sums.raw(np.zeros_like(sums.sums[1]))[0]
        return np.asarray(found)
    rows = sums.stacked[0]
    if free:
        rows = rows - rows.mean(1)[:, None]
    return np.asarray(rows.transpose(0, 2, 1) @ rows)


def _rounded(products: Numbers, weights: Numbers, most: int, support: Flags | None) -> Numbers:
    """Round one system's weights, (columns, outputs)."""
    factor, order = _factored(products)
    step = _fitted(np.diag(products), weights, most)
    whole = np.zeros_like(weights)
    short = np.flatnonzero(np.any(weights != 0, 0))
    for _ in range(TIMES):
        mask = None if support is None else support[:, short]
        whole[:, short] = _in_turn(factor, order, weights[:, short], step[short], most, mask)
        largest = np.abs(whole).max(0)
        short = short[largest[short] < most]
        if not len(short):
            break
        step[short] *= np.maximum(largest[short], 1) / most
    # the heaviest of those that are still short becomes the end of its grid
    heaviest = np.abs(weights[:, short]).argmax(0)
    whole[heaviest, short] = most * np.sign(weights[heaviest, short])
    return np.asarray(whole * step)


def _in_turn(
    factor: Numbers,
    order: npt.NDArray[np.int64],
    weights: Numbers,
    step: Numbers,
    most: int,
    support: Flags | None,
) -> Numbers:
    """Return whole numbers, (columns, outputs).

    Args:
        factor: Upper triangle of the inverse's Cholesky factor, its columns in order.
        order: Of the columns.
        weights: (columns, outputs).
        step: Of each output's grid.
        most: The largest whole number.
        support: Where weights may differ from zero.
    """
    left = weights[order]
    free = None if support is None else support[order]
    whole = np.zeros_like(left)
    columns = len(order)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        lost = np.empty((stop - start, left.shape[1]))
        for column in range(start, stop):
            whole[column] = _whole(left[column], step, most)
            rest = left[column] - whole[column] * step
            lost[column - start] = rest / factor[column, column]
            change = np.outer(factor[column, column + 1 : stop], lost[column - start])
            _take(left, slice(column + 1, stop), change, free)
        _take(left, slice(stop, columns), factor[start:stop, stop:].T @ lost, free)
    found = np.empty_like(whole)
    found[order] = whole
    return found


def _take(left: Numbers, rows: slice, change: Numbers, free: Flags | None) -> None:
    left[rows] -= change if free is None else change * free[rows]


def _factored(products: Numbers) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """Return U of (P'P)^-1 = U'U with columns in the order of the diagonal, and that order."""
    import scipy.linalg

    order = np.argsort(-np.diag(products), kind="stable")
    # of a matrix with its columns turned round the factor's inverse is U turned round
    turned = products[np.ix_(order[::-1], order[::-1])]
    lower = scipy.linalg.cholesky(turned, lower=True, check_finite=False)
    inverse = scipy.linalg.solve_triangular(
        lower, np.eye(len(lower)), lower=True, check_finite=False
    )
    return np.ascontiguousarray(inverse[::-1, ::-1]), order


def _widest(weights: Numbers, most: int) -> Numbers:
    """Return the step of the grid that ends at the largest weight, (..., 1, outputs)."""
    largest = np.abs(weights).max(-2, keepdims=True)
    return np.asarray(np.where(largest > 0, largest, 1.0) / most)


def _whole(weights: Numbers, step: Numbers, most: int) -> Numbers:
    return np.asarray(np.clip(np.round(weights / step), -most, most))


def _fitted(inputs: Numbers, weights: Numbers, most: int) -> Numbers:
    """Return each output's step with the least error of rounding and cutting off, (outputs,).

    Args:
        inputs: How much each column counts, (columns,).
        weights: (columns, outputs).
        most: The largest whole number.
    """
    widest = _widest(weights, most)
    best, least = widest[0], np.full(weights.shape[1], np.inf)
    for share in np.linspace(1.0, NARROWEST, TRIED):
        step = widest * share
        lost: Numbers = inputs @ (weights - _whole(weights, step, most) * step) ** 2
        best = np.where(lost < least, step[0], best)
        least = np.minimum(lost, least)
    return np.asarray(best)
