"""Two kernels in a row, solved together: Gauss-Newton on what the second is to make.

With rows P of the first kernel, h = f(P W1 + c1) between the kernels, rows R(h) of the second,
targets T and the activation behind (what it cuts off is free, as in `Clip`):

    r = R(h) W2 + c2 - T,   J v = R(f' (P v1 + d1)) W2 + R(h) v2 + d2
    (J'J + N + l D) v = -J'r - N (W - W0),   D near diag(J'J)     (Levenberg-Marquardt)

N is the curvature of the error that int8 files make by rounding P and h, W0 the weights that both
began with: without N weights grow without bounds on inputs that are nearly always zero. Solved by
conjugate gradients, with products of J alone, preconditioned by the curvature of each kernel alone.
Steps that do not help on examples held back are taken back.

The curvature of a kernel is taken as if all its outputs saw the same: of outputs o with weights a
of rows p, sum_n a_no p_n p_n' is taken for mean_n(a_no) sum_n p_n p_n'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.core.device import all_blas_threads
from compress.model.program import Node
from compress.reconstruction.kinds import Part
from compress.reconstruction.least_squares import Flags
from compress.reconstruction.paths import Way
from compress.reconstruction.sums import (
    Clip,
    Numbers,
    Sample,
    Singles,
    across,
    back,
    gram,
    products,
    rounding_noise,
)

STEPS = 2
"""Of Gauss-Newton, at most; each on positions of its own."""
PRODUCTS = 10
"""Of conjugate gradients in a step."""
NEAR = 1e-3
"""Of the squared residual at which these end."""
DAMPING = 1e-2
"""Of the first step, relative to the diagonal."""
ENOUGH = 0.01
"""Relative gain below which a step is the last."""
STEP = 1e-2
"""Half the width of the central differences that estimate slopes of activations."""
LEAST = 1e-6
"""Added to the diagonal, relative to its mean: what no row holds stays where it is."""
_Change = Callable[[Numbers, Numbers], tuple[Numbers, Numbers]]


class Kernels(NamedTuple):
    """Both kernels and what is added to their outputs, or changes of them.

    Attributes:
        first, second: (systems, columns, outputs).
        shifts: By channel, of the first and of the second.
    """

    first: Numbers
    second: Numbers
    shifts: tuple[Numbers, Numbers]

    def flat(self) -> Numbers:
        """Return all numbers in a row."""
        return np.concatenate([part.ravel() for part in (self.first, self.second, *self.shifts)])

    def like(self, flat: Numbers) -> Kernels:
        """Return numbers in a row as kernels of these shapes."""
        parts = (self.first, self.second, *self.shifts)
        pieces = np.split(flat, np.cumsum([part.size for part in parts])[:-1])
        first, second, *shifts = (x.reshape(y.shape) for x, y in zip(pieces, parts, strict=True))
        return Kernels(first, second, (shifts[0], shifts[1]))

    def plus(self, change: Numbers) -> Kernels:
        """Return kernels that are changed by numbers in a row."""
        return self.like(self.flat() + change)


@dataclass(frozen=True, eq=False)
class Places:
    """What both kernels see at some positions.

    Attributes:
        rows: Of the first kernel at all positions that the second reads, (systems, hidden,
            columns).
        reads: Which of these each row of the second reads, (rows, offsets); `hidden`, one behind
            the last, where padding is read.
        targets: Of the second kernel's rows, (rows, channels).
        base: What is added to them before the activation behind.
    """

    rows: Singles
    reads: npt.NDArray[np.int64]
    targets: Singles
    base: Singles | None

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """Put places of several chunks behind each other."""
        hidden = [part.rows.shape[1] for part in parts]
        starts, total = np.cumsum([0, *hidden])[:-1], sum(hidden)
        reads = [
            np.where(part.reads == count, total, part.reads + start)
            for part, count, start in zip(parts, hidden, starts, strict=True)
        ]
        bases = [part.base for part in parts if part.base is not None]
        return cls(
            np.concatenate([part.rows for part in parts], 1),
            np.concatenate(reads),
            np.concatenate([part.targets for part in parts]),
            np.concatenate(bases) if bases else None,
        )

    @cached_property
    def gathered(self) -> Any:
        """A sparse matrix: hidden positions from what rows of the second kernel read."""
        from scipy.sparse import csr_matrix

        count, hidden = self.reads.size, self.rows.shape[1]
        ones = np.ones(count, np.float32)
        where = self.reads.ravel(), np.arange(count)
        return csr_matrix((ones, where), (hidden + 1, count))[:hidden]


@dataclass(frozen=True, eq=False)
class Between:
    """From the output z of a kernel to the input of the next: gain * f(way(z)) + offset.

    Attributes:
        nodes: The calls on it, in their order; those of the kernels are not among them.
        second: The call of the next kernel.
        way: From z to the activation; nothing is added there.
        apply: The activation on arrays of any shape, or None: there is none.
        gain, offset: Behind it, by channel.
    """

    nodes: tuple[Node, ...]
    second: Node
    way: Way
    apply: Callable[[Singles], Singles] | None
    gain: Numbers
    offset: Numbers

    def __call__(self, z: Singles) -> tuple[Singles, Singles]:
        """Return the next kernel's input for (rows, channels) behind the way, and its slope."""
        gain = self.gain.astype(np.float32)
        if self.apply is None:
            value, slope = z, np.ones_like(z)
        elif self.way.clip is not None:
            value = np.clip(z, self.way.clip.low, self.way.clip.high)
            slope = (value == z).astype(np.float32)
        else:
            value = self.apply(z)
            slope = (self.apply(z + STEP) - self.apply(z - STEP)) / (2 * STEP)
        return value * gain + self.offset.astype(np.float32), slope * gain


@dataclass(eq=False)
class Pair:
    """Two kernels in a row.

    Attributes:
        parts: Of both layers.
        between: What lies between them.
        clip: The activation behind the second, where it cuts off.
        supports: Where weights may differ from zero; None: everywhere.
        movable: Whether something takes up a constant behind each.
    """

    parts: tuple[Part, Part]
    between: Between
    clip: Clip | None
    supports: tuple[Flags | None, Flags | None] = (None, None)
    movable: tuple[bool, bool] = (True, True)

    def made(self, places: Places, kernels: Kernels) -> _Made:
        """Return what kernels make at places."""
        z = products(places.rows, kernels.first) + kernels.shifts[0].astype(np.float32)
        hidden, slope = self.between(z)
        rows = self._read(places, hidden)
        outputs = products(rows, kernels.second) + kernels.shifts[1].astype(np.float32)
        return _Made(rows, slope, outputs)

    def _read(self, places: Places, hidden: Singles) -> Singles:
        """Return the rows of the second kernel out of hidden positions; padding is zero."""
        padded = np.concatenate([hidden, np.zeros((1, hidden.shape[1]), np.float32)])
        return np.asarray(self.parts[1].arranged(padded[places.reads]), np.float32)

    def sample(self, places: Places, kernels: Kernels) -> Sample:
        """Return places as the second kernel's rows and targets."""
        rows = self.made(places, kernels).rows
        return Sample(rows, places.targets, places.base, rounding_noise(rows))

    def error(self, places: Places, kernels: Kernels) -> float:
        """Return the squared error behind the activation relative to the targets' spread.

        With what rounding the inputs of both kernels to int8 adds to it.
        """
        made = self.made(places, kernels)
        sample = Sample(made.rows, places.targets, places.base, rounding_noise(made.rows))
        hidden = np.square(made.slope) * np.square(kernels.first).sum(1).ravel().astype(np.float32)
        passed = products(self._read(places, hidden), np.square(kernels.second))
        clip = self.clip or Clip(-np.inf, np.inf)
        variance = rounding_noise(places.rows) * passed
        return clip.error(sample, kernels.second, kernels.shifts[1], variance)

    def residual(self, places: Places, made: _Made) -> tuple[Singles, Singles]:
        """Return what outputs are off by, and where they count: 0 where that is cut off."""
        outputs = made.outputs
        if self.clip is None:
            return outputs - places.targets, np.ones_like(outputs)
        return self.clip.residual(outputs, places.targets, places.base)

    def forward(self, places: Places, made: _Made, kernels: Kernels, change: Kernels) -> Singles:
        """Return J v, by rows and channels."""
        moved = products(places.rows, change.first) + change.shifts[0].astype(np.float32)
        rows = self._read(places, moved * made.slope)
        found = products(rows, kernels.second) + products(made.rows, change.second)
        return np.asarray(found + change.shifts[1].astype(np.float32))

    def backward(self, places: Places, made: _Made, kernels: Kernels, u: Singles) -> Numbers:
        """Return J'u, all numbers in a row."""
        hidden = self._back(places, kernels.second, u) * made.slope
        first, own = across(places.rows, hidden), across(made.rows, u)
        sums = hidden.sum(0, dtype=np.float64), u.sum(0, dtype=np.float64)
        return self.held(Kernels(first, own, sums))

    def curvature(
        self, places: Places, made: _Made, kernels: Kernels, active: Singles, damping: float
    ) -> tuple[Curvature, Curvature]:
        """Return the curvature of both kernels, each alone, as if offsets did not overlap."""
        hidden = self._back(places, kernels.second**2, active)
        return (
            Curvature(places.rows, hidden * made.slope**2, damping, rounding_noise(places.rows)),
            Curvature(made.rows, active, damping, rounding_noise(made.rows)),
        )

    def _back(self, places: Places, kernel: Numbers, u: Singles) -> Singles:
        """Return u brought to hidden positions, (hidden, channels)."""
        read = self.parts[1].scattered(back(u, kernel))
        return np.asarray(places.gathered @ read.reshape(-1, read.shape[2]))

    def held(self, change: Kernels) -> Numbers:
        """Return a change without what may not change."""
        first, second = (
            part if support is None else part * support
            for part, support in zip((change.first, change.second), self.supports, strict=True)
        )
        shifts = [
            part if free else np.zeros_like(part)
            for part, free in zip(change.shifts, self.movable, strict=True)
        ]
        return Kernels(first, second, (shifts[0], shifts[1])).flat()


class Curvature:
    """The moments of a kernel's rows and of a constant behind them, damped and inverted.

    Attributes:
        inverse: (systems, columns + 1, columns + 1).
        diagonal: Of the moments, (systems, columns + 1).
        weights: Of the outputs, (systems, outputs).
        noise: Sum over rows of the variance of noise in each of their numbers.

    Args:
        rows: (systems, rows, columns).
        weights: Of each row in each output, (rows, channels), at least 0.
        damping: Share of the diagonal that is added to it.
        noise: Variance of independent noise in each number of the rows.

    Reference:
        Martens & Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate
        Curvature", section 3; here it only preconditions.
    """

    def __init__(self, rows: Singles, weights: Singles, damping: float, noise: float) -> None:
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
        self.weights = np.maximum(each, 1e-3 * each.mean() + 1e-30)
        self.inverse, self.diagonal, self.noise = np.linalg.inv(moments), diagonal, count * noise

    def solved(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return what curvature makes these of: kernel (systems, columns, outputs), shift."""
        both = np.concatenate([kernel, shift.reshape(len(kernel), 1, -1)], 1)
        found = self.inverse @ both / self.weights[:, None]
        return found[:, :-1], found[:, -1].reshape(-1)

    def scaled(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return them times the diagonal of the curvature."""
        by = self.diagonal[:, :, None] * self.weights[:, None]
        return kernel * by[:, :-1], shift * by[:, -1].reshape(-1)

    def times_noise(self, kernel: Numbers, shift: Numbers) -> tuple[Numbers, Numbers]:
        """Return them times the curvature of the error that noise in the rows makes."""
        return self.noise * kernel * self.weights[:, None], np.zeros_like(shift)


class Joint(NamedTuple):
    """What came of solving two kernels together.

    Attributes:
        kernels: The best on examples held back.
        before, after: Their errors, see `Pair.error`.
        steps: That helped.
    """

    kernels: Kernels
    before: float
    after: float
    steps: int


@np.errstate(over="ignore", invalid="ignore")  # a step that goes astray is taken back
@all_blas_threads()
def jointly(pair: Pair, train: Sequence[Places], held: Places, start: Kernels) -> Joint:
    """Go from kernels to better ones, as long as that helps on what is held back.

    Args:
        pair: What is solved.
        train: Places, others for each step.
        held: Those that judge.
        start: Kernels.
    """
    before = error = pair.error(held, start)
    kernels, damping, steps = start, DAMPING, 0
    for places in train:
        trial = kernels.plus(_step(pair, places, kernels, start, damping))
        found = pair.error(held, trial)
        if not found < error:
            damping *= 30
            continue
        gain = 1 - found / error if error else 0.0
        kernels, error, steps, damping = trial, found, steps + 1, damping / 3
        if gain < ENOUGH:
            break
    return Joint(kernels, before, error, steps)


class _Made(NamedTuple):
    """Rows of the second kernel, slopes between the kernels, and outputs of the second."""

    rows: Singles
    slope: Singles
    outputs: Singles


def _step(pair: Pair, places: Places, kernels: Kernels, start: Kernels, damping: float) -> Numbers:
    """Return the change that one damped step makes."""
    made = pair.made(places, kernels)
    residual, active = pair.residual(places, made)
    first, second = pair.curvature(places, made, kernels, active, damping)
    away = kernels.plus(-start.flat())
    pull = pair.held(_by_kernel(first.times_noise, second.times_noise, away))
    left = -pair.backward(places, made, kernels, residual) - pull

    def product(v: Numbers) -> Numbers:
        change = kernels.like(v)
        moved = pair.forward(places, made, kernels, change) * active
        held = damping * _by_kernel(first.scaled, second.scaled, change).flat()
        noise = pair.held(_by_kernel(first.times_noise, second.times_noise, change))
        return np.asarray(pair.backward(places, made, kernels, moved) + held + noise)

    def nearer(v: Numbers) -> Numbers:
        return pair.held(_by_kernel(first.solved, second.solved, kernels.like(v)))

    found, direction = np.zeros_like(left), nearer(left)
    rest = left.copy()
    size = float(rest @ direction)
    least = NEAR * size
    for _ in range(PRODUCTS):
        if size <= least:
            break
        moved = product(direction)
        length = size / max(float(direction @ moved), 1e-300)
        found += length * direction
        rest -= length * moved
        ahead = nearer(rest)
        new = float(rest @ ahead)
        direction = ahead + new / size * direction
        size = new
    return found


def _by_kernel(first: _Change, second: _Change, change: Kernels) -> Kernels:
    one, shift = first(change.first, change.shifts[0])
    two, other = second(change.second, change.shifts[1])
    return Kernels(one, two, (shift, other))
