"""Linear systems of ridge regressions: by factorization, or by conjugate gradients on supports.

All arrays have a leading axis of systems that share no weights, unless a function is of one system.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from compress.core.device import limit_blas_threads
from compress.reconstruction.row_products import WIDE, Numbers

Flags = npt.NDArray[np.bool_]
WARM_STEPS, COLD_STEPS = 30, 300
"""Maximum conjugate gradient iterations from a nearby solution and from zero."""
DEAD_NORM = 1e-9
"""Norm of a column, relative to the largest, below which the column is ignored. It is small because
inputs of very different scales (1e4 and 1e-2, for example) all matter."""


def add_ridge(a: Numbers, ridge: float) -> Numbers:
    """Return the matrix plus ridge; columns that are always zero get 1 and keep their weights."""
    diagonal = np.einsum("sdd->sd", a)
    dead = diagonal <= DEAD_NORM**2 * np.maximum(diagonal.max(1, keepdims=True), 1e-280)
    regular = a.copy()
    np.einsum("sdd->sd", regular)[:] = np.where(dead, 1.0, diagonal * (1 + ridge))
    alive = ~dead
    regular *= alive[:, :, None] & alive[:, None]
    np.einsum("sdd->sd", regular)[:] += dead
    return regular


def use_cores(matrices: Numbers) -> AbstractContextManager[None]:
    """Return a context in which the linear algebra of large matrices runs on all cores."""
    return limit_blas_threads() if matrices.shape[1] >= WIDE else nullcontext()


def solve_systems(regular: Numbers, right_side: Numbers) -> Numbers:
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
            with use_cores(scaled):
                factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
                solution[system] = scipy.linalg.cho_solve(factor, values, check_finite=False)
        except scipy.linalg.LinAlgError:
            solution[system] = scipy.linalg.lstsq(matrix, values, check_finite=False)[0]
    return np.asarray(solution * scale[:, :, None])


def solve_on_support(regular: Numbers, right_side: Numbers, support: Flags) -> Numbers:
    """Solve each output on its own support; outputs with the same support share a factorization."""
    solution = np.zeros_like(right_side)
    patterns, pattern_index = np.unique(support.T, axis=0, return_inverse=True)
    order = np.argsort(pattern_index.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(pattern_index.ravel()))[:-1])
    for pattern, outputs in zip(patterns, groups, strict=True):
        inside = np.flatnonzero(pattern)
        if len(inside):
            group_solution = solve_systems(
                regular[np.ix_(inside, inside)][None], right_side[np.ix_(inside, outputs)][None]
            )
            solution[np.ix_(inside, outputs)] = group_solution[0]
    return solution


def solve_by_rows(
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
            scale[:, None] * (scaled.T @ solve_systems(products[None], residual[None])[0])
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


def refine_on_support(a: Numbers, b: Numbers, support: Flags, start: Numbers) -> Numbers:
    """Solve a x = b on supports for all outputs at once, by conjugate gradients from `start`."""
    residual = (b - a @ start) * support
    return _solve_conjugate_gradients(lambda x: (a @ x) * support, residual, WARM_STEPS) + start
