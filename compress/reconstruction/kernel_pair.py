"""Two consecutive kernels: the error of their outputs at sampled positions, and its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compress.model.program import Node
from compress.reconstruction.kernel_parts import KernelPart
from compress.reconstruction.linear_paths import LinearPath
from compress.reconstruction.linear_systems import Flags
from compress.reconstruction.row_products import (
    Numbers,
    Singles,
    compute_gram,
    multiply_rows,
    multiply_transposed,
)
from compress.reconstruction.sampling import estimate_rounding_noise
from compress.reconstruction.sums import Clip, Sample

SLOPE_STEP = 1e-2
"""Half the width of the central differences that estimate the slopes of activations."""


class PairWeights(NamedTuple):
    """Kernels and shifts of both layers, or changes of them.

    Attributes:
        first, second: Kernels, (systems, columns, outputs).
        shifts: Shifts of the first and of the second layer, by channel.
    """

    first: Numbers
    second: Numbers
    shifts: tuple[Numbers, Numbers]

    def flatten(self) -> Numbers:
        """Return all weights as one vector."""
        return np.concatenate([part.ravel() for part in (self.first, self.second, *self.shifts)])

    def unflatten(self, flat: Numbers) -> PairWeights:
        """Return a vector as kernels and shifts of these shapes."""
        parts = (self.first, self.second, *self.shifts)
        pieces = np.split(flat, np.cumsum([part.size for part in parts])[:-1])
        first, second, *shifts = (x.reshape(y.shape) for x, y in zip(pieces, parts, strict=True))
        return PairWeights(first, second, (shifts[0], shifts[1]))

    def add(self, change: Numbers) -> PairWeights:
        """Return the weights after adding a flattened change."""
        return self.unflatten(self.flatten() + change)


@dataclass(frozen=True, eq=False)
class PairSample:
    """Rows of both kernels and targets of the second one at sampled positions.

    Attributes:
        rows: Rows of the first kernel at all positions that the second one reads, (systems, hidden,
            columns).
        reads: Indices into `hidden` read by each row of the second kernel, (rows, offsets); the
            index `hidden` (one past the end) stands for padding.
        targets: Targets of the second kernel, (rows, channels).
        base: Values added to outputs and targets before the following activation, (rows, channels);
            None: none.
    """

    rows: Singles
    reads: npt.NDArray[np.int64]
    targets: Singles
    base: Singles | None

    @classmethod
    def concat(cls, parts: Sequence[PairSample]) -> PairSample:
        """Concatenate the samples of several chunks."""
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
    def scatter_matrix(self) -> Any:
        """Sparse matrix that sums values read by the second kernel into hidden positions."""
        from scipy.sparse import csr_matrix

        count, hidden = self.reads.size, self.rows.shape[1]
        ones = np.ones(count, np.float32)
        where = self.reads.ravel(), np.arange(count)
        return csr_matrix((ones, where), (hidden + 1, count))[:hidden]


@dataclass(frozen=True, eq=False)
class PairPath:
    """Path from the output y of a kernel to the input of the next: gain * f(path(y)) + offset.

    Attributes:
        nodes: Calls on the path in their order, without those of the kernels.
        second: Call of the next kernel.
        path: Path from y to the activation; no tensor is added on it.
        activation: Activation function of arrays of any shape; None: there is none.
        gain, offset: Applied after the activation, by channel.
    """

    nodes: tuple[Node, ...]
    second: Node
    path: LinearPath
    activation: Callable[[Singles], Singles] | None
    gain: Numbers
    offset: Numbers

    def __call__(self, z: Singles) -> tuple[Singles, Singles]:
        """Return the next kernel's input and its slope, both (rows, channels).

        Args:
            z: Values path(y) before the activation, (rows, channels).
        """
        gain = self.gain.astype(np.float32)
        if self.activation is None:
            value, slope = z, np.ones_like(z)
        elif self.path.clip is not None:
            value = np.clip(z, self.path.clip.low, self.path.clip.high)
            slope = (value == z).astype(np.float32)
        else:
            value = self.activation(z)
            slope = (self.activation(z + SLOPE_STEP) - self.activation(z - SLOPE_STEP)) / (
                2 * SLOPE_STEP
            )
        return value * gain + self.offset.astype(np.float32), slope * gain


class ForwardPass(NamedTuple):
    """Rows of the second kernel, slopes between the kernels, and outputs of the second."""

    rows: Singles
    slope: Singles
    outputs: Singles


@dataclass(eq=False)
class KernelPair:
    """Two consecutive kernels.

    Attributes:
        parts: Kernels of both layers.
        between: Path between them.
        clip: Clipping activation after the second kernel; None: there is none.
        supports: Positions of each kernel that may differ from zero; None: all.
        can_shift: Whether each layer can represent a constant shift of its outputs.
    """

    parts: tuple[KernelPart, KernelPart]
    between: PairPath
    clip: Clip | None
    supports: tuple[Flags | None, Flags | None] = (None, None)
    can_shift: tuple[bool, bool] = (True, True)

    def run_forward(self, pair_sample: PairSample, kernels: PairWeights) -> ForwardPass:
        """Return rows, slopes and outputs of the second kernel for the sampled positions."""
        z = multiply_rows(pair_sample.rows, kernels.first) + kernels.shifts[0].astype(np.float32)
        hidden, slope = self.between(z)
        rows = self._gather_rows(pair_sample, hidden)
        outputs = multiply_rows(rows, kernels.second) + kernels.shifts[1].astype(np.float32)
        return ForwardPass(rows, slope, outputs)

    def _gather_rows(self, pair_sample: PairSample, hidden: Singles) -> Singles:
        """Return the rows of the second kernel from hidden values; padding is zero."""
        padded = np.concatenate([hidden, np.zeros((1, hidden.shape[1]), np.float32)])
        return np.asarray(self.parts[1].arrange_rows(padded[pair_sample.reads]), np.float32)

    def build_sample(self, pair_sample: PairSample, kernels: PairWeights) -> Sample:
        """Return rows and targets of the second kernel."""
        rows = self.run_forward(pair_sample, kernels).rows
        return Sample(rows, pair_sample.targets, pair_sample.base, estimate_rounding_noise(rows))

    def measure_error(self, pair_sample: PairSample, kernels: PairWeights) -> float:
        """Return the squared error after the activation, relative to the spread of the targets.

        It includes the error caused by rounding the inputs of both kernels to int8.
        """
        forward_pass = self.run_forward(pair_sample, kernels)
        sample = Sample(
            forward_pass.rows,
            pair_sample.targets,
            pair_sample.base,
            estimate_rounding_noise(forward_pass.rows),
        )
        hidden = np.square(forward_pass.slope) * np.square(kernels.first).sum(1).ravel().astype(
            np.float32
        )
        passed = multiply_rows(self._gather_rows(pair_sample, hidden), np.square(kernels.second))
        clip = self.clip or Clip(-np.inf, np.inf)
        variance = estimate_rounding_noise(pair_sample.rows) * passed
        return clip.measure_error(sample, kernels.second, kernels.shifts[1], variance)

    def compute_residual(
        self, pair_sample: PairSample, forward_pass: ForwardPass
    ) -> tuple[Singles, Singles]:
        """Return the residuals of the outputs and a mask with 0 where both sides are clipped."""
        outputs = forward_pass.outputs
        if self.clip is None:
            return outputs - pair_sample.targets, np.ones_like(outputs)
        return self.clip.compute_residual(outputs, pair_sample.targets, pair_sample.base)

    def multiply_jacobian(
        self,
        pair_sample: PairSample,
        forward_pass: ForwardPass,
        kernels: PairWeights,
        change: PairWeights,
    ) -> Singles:
        """Return J v, (rows, channels).

        Args:
            pair_sample: Sampled positions.
            forward_pass: Result of `run_forward` there.
            kernels: Weights at which J is evaluated.
            change: The direction v.
        """
        first_change = multiply_rows(pair_sample.rows, change.first) + change.shifts[0].astype(
            np.float32
        )
        rows = self._gather_rows(pair_sample, first_change * forward_pass.slope)
        output_change = multiply_rows(rows, kernels.second) + multiply_rows(
            forward_pass.rows, change.second
        )
        return np.asarray(output_change + change.shifts[1].astype(np.float32))

    def multiply_transposed(
        self, pair_sample: PairSample, forward_pass: ForwardPass, kernels: PairWeights, u: Singles
    ) -> Numbers:
        """Return J'u as one vector.

        Args:
            pair_sample: Sampled positions.
            forward_pass: Result of `run_forward` there.
            kernels: Weights at which J is evaluated.
            u: (rows, channels).
        """
        hidden = self._propagate_back(pair_sample, kernels.second, u) * forward_pass.slope
        first, second = (
            multiply_transposed(pair_sample.rows, hidden),
            multiply_transposed(forward_pass.rows, u),
        )
        sums = hidden.sum(0, dtype=np.float64), u.sum(0, dtype=np.float64)
        return self.mask_change(PairWeights(first, second, sums))

    def compute_moments(
        self, pair_sample: PairSample, forward_pass: ForwardPass, kernels: PairWeights,
        active: Singles,
    ) -> tuple[RowMoments, RowMoments]:  # fmt: skip
        """Return the weighted moments of the rows of each kernel, of which `Curvature` is made.

        Args:
            pair_sample: Sampled positions.
            forward_pass: Result of `run_forward` there.
            kernels: Weights at which the curvature is evaluated.
            active: 0 where outputs are clipped, else 1, (rows, channels).
        """
        hidden = self._propagate_back(pair_sample, kernels.second**2, active)
        return (
            RowMoments.from_rows(pair_sample.rows, hidden * forward_pass.slope**2),
            RowMoments.from_rows(forward_pass.rows, active),
        )

    def _propagate_back(self, pair_sample: PairSample, kernel: Numbers, u: Singles) -> Singles:
        """Propagate u back to the hidden positions, (hidden, channels)."""
        read = self.parts[1].scatter_rows(propagate_back(u, kernel))
        return np.asarray(pair_sample.scatter_matrix @ read.reshape(-1, read.shape[2]))

    def mask_change(self, change: PairWeights) -> Numbers:
        """Return a flattened change with zeros where weights or shifts are fixed."""
        first, second = (
            part if support is None else part * support
            for part, support in zip((change.first, change.second), self.supports, strict=True)
        )
        shifts = [
            part if free else np.zeros_like(part)
            for part, free in zip(change.shifts, self.can_shift, strict=True)
        ]
        return PairWeights(first, second, (shifts[0], shifts[1])).flatten()


@dataclass(frozen=True, eq=False)
class RowMoments:
    """Second moments of a kernel's rows, extended by a constant column, and the rows' weights.

    Attributes:
        moments: Sums over the rows, (systems, columns + 1, columns + 1).
        weights: Sum of the rows' weights in each output, (channels,).
        noise: Variance of the int8 rounding error in each element of the rows.
    """

    moments: Numbers
    weights: Numbers
    noise: float

    @classmethod
    def from_rows(cls, rows: Singles, weights: Singles) -> RowMoments:
        """Return the moments of rows (systems, rows, columns) with weights (rows, channels)."""
        systems, count, columns = rows.shape
        moments = np.empty((systems, columns + 1, columns + 1))
        moments[:, :-1, :-1] = compute_gram(rows)
        moments[:, :-1, -1] = moments[:, -1, :-1] = rows.sum(1, dtype=np.float64)
        moments[:, -1, -1] = count
        return cls(moments, weights.sum(0, dtype=np.float64), estimate_rounding_noise(rows))

    def __add__(self, other: RowMoments) -> RowMoments:
        """Return the moments of all rows; the larger noise variance holds for all of them."""
        return RowMoments(
            self.moments + other.moments, self.weights + other.weights,
            max(self.noise, other.noise),
        )  # fmt: skip


def propagate_back(u: Singles, weights: Numbers) -> Singles:
    """Return u x weights', by rows.

    Args:
        u: (rows, channels).
        weights: (systems, columns, outputs).

    Returns:
        (systems, rows, columns); if each of several systems has one output, the systems are last in
        memory.
    """
    systems, _, outputs = weights.shape
    kernel = weights.astype(np.float32)
    if systems > 1 and outputs == 1:
        return np.asarray((u[:, None] * kernel[:, :, 0].T).transpose(2, 0, 1))
    shaped = u.reshape(len(u), systems, outputs).transpose(1, 0, 2)
    return np.asarray(shaped @ kernel.transpose(0, 2, 1))
