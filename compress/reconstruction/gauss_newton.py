"""Joint reconstruction of two consecutive kernels by Gauss-Newton.

P are the rows of the first kernel, h = f(P W1 + c1) the values between the kernels, R(h) the rows
of the second kernel and T its targets. The residual takes the following activation into account:
errors that it clips are ignored, as in `Clip`.

    r = R(h) W2 + c2 - T,   J v = R(f' (P v1 + d1)) W2 + R(h) v2 + d2
    (J'J + N + l D) v = -J'r - N (W - W0),   D near diag(J'J)     (Levenberg-Marquardt)

N is the curvature of the error caused by rounding P and h to int8, and W0 are the initial weights.
Without N, the weights of inputs that are nearly always zero would grow without bound. The system is
solved by conjugate gradients, which need only products with J, preconditioned by the curvature of
each kernel alone. Steps that do not reduce the held-out error are undone.

The curvature of a kernel is approximated by one matrix for all its outputs: with weight a_no of row
p_n in output o, sum_n a_no p_n p_n' is replaced by mean_n(a_no) sum_n p_n p_n'.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from compress.core.device import count_threads, limit_blas_threads
from compress.reconstruction.kernel_pair import (
    ForwardPass,
    KernelPair,
    PairSample,
    PairWeights,
    RowMoments,
)
from compress.reconstruction.row_products import Numbers, Singles

MAX_STEPS = 2
"""Maximum number of Gauss-Newton steps; each uses different positions."""
PRODUCTS = 5
"""Maximum number of conjugate gradient iterations per step."""
NEAR = 1e-3
"""Squared residual at which the conjugate gradients stop, relative to the first one and in the norm
of the preconditioner."""
INITIAL_DAMPING = 1e-2
"""Damping of the first step, relative to the diagonal."""
MIN_GAIN = 0.01
"""Minimum relative reduction of the error; a step with a smaller one is the last."""
MIN_DAMPING = 1e-6
"""Added to the diagonal, relative to its mean: weights of inputs that are always zero do not
change."""
_KernelMap = Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]
_Run = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Curvature:
    """Damped and inverted second moments of a kernel's rows, extended by a constant column.

    Args:
        rows: Moments and weights of the rows; independent noise in their elements is added.
        damping: Share of the diagonal that is added to it.

    Attributes:
        inverse: Inverse of the matrix scaled to a unit diagonal, (systems, columns + 1,
            columns + 1), in single precision: it only speeds up the conjugate gradients.
        scale: Scale of rows and columns that makes the diagonal 1, (systems, columns + 1, 1).
        diagonal: Diagonal of the moments, (systems, columns + 1).
        weights: Mean weight of each output, (systems, outputs), at least 1/1000 of their mean.
        noise: Noise variance summed over the rows.

    Reference:
        Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature", section 3; here it is only a preconditioner.
    """

    def __init__(self, rows: RowMoments, damping: float) -> None:
        count = float(rows.moments[0, -1, -1])
        self.noise = count * rows.noise
        diagonal = np.einsum("sdd->sd", rows.moments).copy()
        diagonal[:, :-1] += self.noise
        diagonal += MIN_DAMPING * diagonal.mean() + 1e-30
        self.scale = 1 / np.sqrt((1 + damping) * diagonal)[:, :, None]
        scaled = (rows.moments * self.scale * self.scale.transpose(0, 2, 1)).astype(np.float32)
        np.einsum("sdd->sd", scaled)[:] = 1
        mean_weights = (rows.weights / count).reshape(len(scaled), -1)
        self.weights = np.maximum(mean_weights, 1e-3 * mean_weights.mean() + 1e-30)
        self.inverse, self.diagonal = np.linalg.inv(scaled), diagonal

    def solve(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return the inverse curvature times a kernel and a shift.

        Args:
            kernel: (systems, columns, outputs).
            shift: (channels,).
        """
        both = np.concatenate([kernel, shift.reshape(len(kernel), 1, -1)], 1)
        scaled = self.inverse @ (both * self.scale).astype(np.float32)
        solution = scaled * self.scale / self.weights[:, None]
        return solution[:, :-1], solution[:, -1].reshape(-1)

    def multiply_diagonal(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return a kernel and a shift times the diagonal of the curvature."""
        scale = self.diagonal[:, :, None] * self.weights[:, None]
        return kernel * scale[:, :-1], shift * scale[:, -1].reshape(-1)

    def multiply_noise(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return a kernel and a shift times the curvature of the error caused by input noise."""
        return self.noise * kernel * self.weights[:, None], np.zeros_like(shift)


@np.errstate(over="ignore", invalid="ignore")  # steps that diverge are undone
@limit_blas_threads()
def solve_pair(
    pair: KernelPair,
    train: Sequence[Sequence[PairSample]],
    held_out: PairSample,
    start: PairWeights,
) -> tuple[PairWeights, float]:
    """Minimize the error of two consecutive kernels, one Gauss-Newton step per training sample.

    A step that does not reduce the held-out error is undone, and the next one is damped more.

    Args:
        pair: Both kernels.
        train: One sample per step, at other positions each, in parts that threads share.
        held_out: Sample on which each step is evaluated.
        start: Initial weights.

    Returns:
        The weights with the lowest held-out error, and this error (`KernelPair.measure_error`) as a
        share of that of `start`: 1 if no step reduced it.
    """
    before = error = pair.measure_error(held_out, start)
    kernels, damping = start, INITIAL_DAMPING
    for parts in train:
        # a single part leaves the cores to the linear algebra
        with (
            limit_blas_threads(1 if len(parts) > 1 else None),
            ThreadPoolExecutor(min(len(parts), count_threads())) as pool,
        ):

            def run(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
                # the state of NumPy's errors holds in one thread
                quiet = np.errstate(over="ignore", invalid="ignore")(function)
                return pool.map(quiet, items)

            trial = kernels.add(_compute_step(pair, parts, kernels, start, damping, run))
        trial_error = pair.measure_error(held_out, trial)
        if not trial_error < error:
            damping *= 30
            continue
        gain = 1 - trial_error / error if error else 0.0
        kernels, error, damping = trial, trial_error, damping / 3
        if gain < MIN_GAIN:
            break
    return kernels, error / before if error < before else 1.0


class _Linearization(NamedTuple):
    """A part of a sample with its residuals at the current weights, where J is evaluated.

    Attributes:
        active: 0 where outputs are clipped, else 1, (rows, channels).
    """

    sample: PairSample
    forward_pass: ForwardPass
    residual: Singles
    active: Singles


def _compute_step(
    pair: KernelPair,
    pair_samples: Sequence[PairSample],
    kernels: PairWeights,
    start: PairWeights,
    damping: float,
    run: _Run = map,
) -> Numbers:
    """Return the change of the weights in one damped step.

    Args:
        pair, kernels, start: See `solve_pair`; `kernels` are the current weights.
        pair_samples: The parts of a sample.
        damping: Share of the diagonal that is added to it.
        run: Function that yields the results of a function for all parts, in their order.
    """

    def linearize(pair_sample: PairSample) -> _Linearization:
        forward_pass = pair.run_forward(pair_sample, kernels)
        return _Linearization(
            pair_sample, forward_pass, *pair.compute_residual(pair_sample, forward_pass)
        )

    parts: list[_Linearization] = list(run(linearize, pair_samples))
    moments = run(
        lambda part: pair.compute_moments(part.sample, part.forward_pass, kernels, part.active),
        parts,
    )
    first, second = (
        Curvature(functools.reduce(operator.add, rows), damping)
        for rows in zip(*moments, strict=True)
    )
    away = kernels.add(-start.flatten())
    pull = pair.mask_change(_apply_to_both(first.multiply_noise, second.multiply_noise, away))
    gradients = run(
        lambda part: pair.multiply_transposed(
            part.sample, part.forward_pass, kernels, part.residual
        ),
        parts,
    )
    negative_gradient = np.asarray(-sum(gradients) - pull)

    def multiply_hessian(v: Numbers) -> Numbers:
        change = kernels.unflatten(v)

        def multiply(part: _Linearization) -> Numbers:
            outputs = pair.multiply_jacobian(part.sample, part.forward_pass, kernels, change)
            return pair.multiply_transposed(
                part.sample, part.forward_pass, kernels, outputs * part.active
            )

        damped = (
            damping
            * _apply_to_both(first.multiply_diagonal, second.multiply_diagonal, change).flatten()
        )
        noise = pair.mask_change(
            _apply_to_both(first.multiply_noise, second.multiply_noise, change)
        )
        return np.asarray(sum(run(multiply, parts)) + damped + noise)

    def precondition(v: Numbers) -> Numbers:
        return pair.mask_change(_apply_to_both(first.solve, second.solve, kernels.unflatten(v)))

    solution, direction = np.zeros_like(negative_gradient), precondition(negative_gradient)
    remainder = negative_gradient.copy()
    size = float(remainder @ direction)
    tolerance = NEAR * size
    for _ in range(PRODUCTS):
        if size <= tolerance:
            break
        product = multiply_hessian(direction)
        length = size / max(float(direction @ product), 1e-300)
        solution += length * direction
        remainder -= length * product
        preconditioned = precondition(remainder)
        new_size = float(remainder @ preconditioned)
        direction = preconditioned + new_size / size * direction
        size = new_size
    return solution


def _apply_to_both(first: _KernelMap, second: _KernelMap, change: PairWeights) -> PairWeights:
    first_kernel, first_shift = first(change.first, change.shifts[0])
    second_kernel, second_shift = second(change.second, change.shifts[1])
    return PairWeights(first_kernel, second_kernel, (first_shift, second_shift))
