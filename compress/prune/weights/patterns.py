"""Patterns of weight pruning: units of weights that are kept or pruned together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.plan import WeightOptions
from compress.prune.weights.targets import Target


def pattern_of(options: WeightOptions) -> Pattern:
    """Return the pattern that a plan names."""
    named = options.pattern
    if named.kind == "n:m":
        return NM(named.first, named.second)
    if named.kind == "block":
        return Block(named.first, named.second, options.pooling)
    return Unstructured()


class Pattern(ABC):
    """One pattern. All tensors are TensorFlow's; every method but `check` is graph code."""

    decides: ClassVar[bool] = False
    """The pattern itself says how many units stay, by `kept`; else a sparsity does."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As in a plan: "unstructured", "2:4", "1x4"."""

    def check(self, target: Target) -> str:
        """Return the reason why a weight cannot have this pattern; "" where it can.

        Raises:
            InputError: The pattern is too large for the weight.
        """
        return ""

    @abstractmethod
    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Return one magnitude for each unit (weight, block or position), any shape."""

    def spread(self, kept: Any, target: Target) -> Any:
        """Turn kept units, booleans shaped as `magnitudes`, into a mask of the weight's shape."""
        return kept

    def kept(self, magnitudes: Any) -> Any:
        """Return the mask of kept units, in the magnitudes' shape, for a pattern that `decides`."""
        raise NotImplementedError


class Unstructured(Pattern):
    """Single weights, by |w|: every weight stands alone."""

    name = "unstructured"

    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Return |w|, in the weight's shape."""
        return tf.abs(weight)


@dataclass(frozen=True)
class NM(Pattern):
    """N kept of M consecutive weights along the input axis, the largest ones.

    The last M of an axis may be fewer; they keep up to N too. Of equal magnitudes the first
    is kept.

    Attributes:
        n: Kept, at least 1 and below `m`.
        m: Consecutive weights.

    Reference:
        Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3. tfmot's
        `sparsity_m_by_n=(z, m)` counts zeros: it is N = m - z here.
    """

    n: int
    m: int
    decides: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """As in a plan."""
        return f"{self.n}:{self.m}"

    def check(self, target: Target) -> str:
        """Return the reason where a kernel has no input axis of at least M, else ""."""
        if target.view is None:
            return f"its kernel has no single input axis for {self.name}"
        inputs = target.view.inputs
        if inputs < self.m:
            return f"its input axis of {inputs} is shorter than the {self.m} of {self.name}"
        return ""

    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Return |w| in runs of M, (runs, M); missing ones count as zero."""
        rows = target.matrix.matrices(tf.abs(weight))  # (positions, inputs, outputs)
        rows = tf.transpose(rows, (2, 0, 1))  # (outputs, positions, inputs)
        short = -target.matrix.inputs % self.m
        return tf.reshape(tf.pad(rows, ((0, 0), (0, 0), (0, short))), (-1, self.m))

    def kept(self, magnitudes: Any) -> Any:
        """Return the N largest of each run as booleans, (runs, M)."""
        _, places = tf.math.top_k(magnitudes, k=self.n, sorted=False)
        return tf.reduce_any(tf.one_hot(places, self.m, True, False, dtype=tf.bool), axis=1)

    def spread(self, kept: Any, target: Target) -> Any:
        """Return runs as a mask of the weight's shape."""
        view = target.matrix
        runs = tf.reshape(kept, (view.outputs, view.positions, -1))[:, :, : view.inputs]
        return view.weight(tf.transpose(runs, (1, 2, 0)))


@dataclass(frozen=True)
class Block(Pattern):
    """`rows` inputs x `columns` outputs of a kernel's matrix, at every kernel position.

    A block counts by the mean (or largest) magnitude of its weights. Blocks at the border may
    be smaller.

    Attributes:
        rows: Along the input axis.
        columns: Along the output axis.
        pooling: "avg" or "max".

    Reference:
        tfmot's `block_size` and `block_pooling_type`, for Dense kernels bit by bit: where the
        kernel is no multiple of the block, tfmot's pooling window begins before the block that
        it decides on ("SAME" padding), and so does ours. Convolutions, which tfmot refuses,
        have no such offset.
    """

    rows: int
    columns: int
    pooling: str = "avg"

    @property
    def name(self) -> str:
        """As in a plan."""
        return f"{self.rows}x{self.columns}"

    def check(self, target: Target) -> str:
        """Return the reason where a kernel is no matrix at every position, else "".

        Raises:
            InputError: A block is larger than the matrix.
        """
        if target.view is None:
            return f"its kernel is no matrix for blocks of {self.name}"
        size = (target.view.inputs, target.view.outputs)
        if self.rows > size[0] or self.columns > size[1]:
            raise InputError(
                f"A block must be no larger than the weight. Received: {self.name} for the "
                f"{size[0]} x {size[1]} kernel of layer '{target.layer}'. Choose a smaller "
                f"block, or leave the layer out: --prune-overrides {target.layer}=0."
            )
        return ""

    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Return one magnitude a block, (positions, block rows, block columns)."""
        view = target.matrix
        matrices = view.matrices(tf.abs(weight))  # (positions, inputs, outputs)
        if target.kind == "Dense":
            return self._pooled_as_tfmot(matrices)
        border = (0, 0), (0, -view.inputs % self.rows), (0, -view.outputs % self.columns)
        high, wide = -(-view.inputs // self.rows), -(-view.outputs // self.columns)
        grid = (-1, high, self.rows, wide, self.columns)
        blocks = tf.reshape(tf.pad(matrices, border), grid)
        if self.pooling == "max":
            return tf.reduce_max(blocks, axis=(2, 4))
        members = np.pad(np.ones((1, view.inputs, view.outputs), np.float32), border)
        return tf.reduce_sum(blocks, axis=(2, 4)) / members.reshape(grid).sum((2, 4))

    def spread(self, kept: Any, target: Target) -> Any:
        """Repeat blocks over the weights that they hold."""
        view = target.matrix
        wide = tf.repeat(tf.repeat(kept, self.rows, axis=1), self.columns, axis=2)
        return view.weight(wide[:, : view.inputs, : view.outputs])

    def _pooled_as_tfmot(self, matrices: Any) -> Any:
        """Pool heights, then widths, as `pruning_utils.factorized_pool` does: same rounding."""
        pooled = matrices[:, tf.newaxis]  # (positions, 1, inputs, outputs)
        for size in (self.rows, self.columns):
            pooled = tf.nn.pool(
                pooled, [1, size], self.pooling.upper(), strides=[1, size], padding="SAME"
            )
            pooled = tf.transpose(pooled, (0, 1, 3, 2))
        return pooled[:, 0]
