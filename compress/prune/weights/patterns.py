"""Patterns of weight pruning: units of weights that are kept or removed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.plan import WeightOptions
from compress.prune.weights.targets import Target


def create_pattern(options: WeightOptions) -> Pattern:
    """Return the pattern that the options name."""
    spec = options.pattern
    if spec.kind == "n:m":
        return NMPattern(spec.first, spec.second)
    return BlockPattern(spec.first, spec.second) if spec.kind == "block" else Pattern()


class Pattern:
    """Single weights, ranked by |w|; base class of the other patterns.

    All tensors are TensorFlow tensors. All methods except `check` can run in a graph.
    """

    def check(self, target: Target) -> str:
        """Return the reason why a weight cannot have this pattern, or "" if it can.

        Args:
            target: The weight to prune.

        Raises:
            InputError: The pattern is too large for the weight.
        """
        return ""

    def compute_magnitudes(self, weight: Any, target: Target) -> Any:
        """Return the magnitude of each unit (weight, block or position), in any shape."""
        return tf.abs(weight)

    def expand_mask(self, kept: Any, target: Target) -> Any:
        """Convert a mask of units, shaped as in `compute_magnitudes`, to the weight's shape."""
        return kept


@dataclass(frozen=True)
class NMPattern(Pattern):
    """N:M sparsity: the N largest of M consecutive weights along the input axis are kept.

    If the last run of an axis is shorter than M, up to N of its weights are kept too. If magnitudes
    are equal, the first weight is kept.

    Attributes:
        n: Number of kept weights, at least 1 and below `m`.
        m: Number of consecutive weights.

    Reference:
        Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3. tfmot's
        `sparsity_m_by_n=(z, m)` counts zeros; here N = m - z.
    """

    n: int
    m: int

    def check(self, target: Target) -> str:
        """Return the reason if a kernel has no input axis of at least M entries, else ""."""
        if target.view is None:
            return f"its kernel has no single input axis for {self.n}:{self.m}"
        inputs = target.view.inputs
        if inputs < self.m:
            return f"its input axis of {inputs} is shorter than the {self.m} of {self.n}:{self.m}"
        return ""

    def compute_magnitudes(self, weight: Any, target: Target) -> Any:
        """Return |w| in runs of M, (runs, M); missing weights count as zero."""
        rows = target.matrix.to_matrices(tf.abs(weight))  # (positions, inputs, outputs)
        rows = tf.transpose(rows, (2, 0, 1))  # (outputs, positions, inputs)
        short = -target.matrix.inputs % self.m
        return tf.reshape(tf.pad(rows, ((0, 0), (0, 0), (0, short))), (-1, self.m))

    def select_kept(self, magnitudes: Any) -> Any:
        """Return the N largest of each run as booleans, (runs, M)."""
        _, indices = tf.math.top_k(magnitudes, k=self.n, sorted=False)
        return tf.reduce_any(tf.one_hot(indices, self.m, True, False, dtype=tf.bool), axis=1)

    def expand_mask(self, kept: Any, target: Target) -> Any:
        """Convert a mask of runs to the weight's shape."""
        view = target.matrix
        runs = tf.reshape(kept, (view.outputs, view.positions, -1))[:, :, : view.inputs]
        return view.from_matrices(tf.transpose(runs, (1, 2, 0)))


@dataclass(frozen=True)
class BlockPattern(Pattern):
    """Blocks of `rows` inputs x `columns` outputs of a kernel's matrix, at every kernel position.

    A block is ranked by the mean magnitude of its weights. Blocks at the border may be smaller.

    Attributes:
        rows: Block size along the input axis.
        columns: Block size along the output axis.

    Reference:
        tfmot's `block_size` and `block_pooling_type`, reproduced bit by bit for Dense kernels: if
        the kernel size is not a multiple of the block size, tfmot's pooling window begins before
        the block that it ranks ("SAME" padding), and so does this one. Convolutions, which tfmot
        rejects, have no such offset.
    """

    rows: int
    columns: int

    def check(self, target: Target) -> str:
        """Return the reason if a kernel is not a matrix at every position, else "".

        Args:
            target: The weight to prune.

        Raises:
            InputError: A block is larger than the matrix.
        """
        if target.view is None:
            return f"its kernel is no matrix for blocks of {self.rows}x{self.columns}"
        size = (target.view.inputs, target.view.outputs)
        if self.rows > size[0] or self.columns > size[1]:
            raise InputError(
                f"A block must be no larger than the weight. Received: {self.rows}x{self.columns} "
                f"for the {size[0]} x {size[1]} kernel of layer '{target.layer}'. Choose a smaller "
                f"block, or leave the layer out: --weight-overrides {target.layer}=0."
            )
        return ""

    def compute_magnitudes(self, weight: Any, target: Target) -> Any:
        """Return the magnitude of each block, (positions, block rows, block columns)."""
        view = target.matrix
        matrices = view.to_matrices(tf.abs(weight))  # (positions, inputs, outputs)
        if target.kind == "Dense":
            return self._pool_as_tfmot(matrices)
        padding = (0, 0), (0, -view.inputs % self.rows), (0, -view.outputs % self.columns)
        row_count, column_count = -(-view.inputs // self.rows), -(-view.outputs // self.columns)
        grid = (-1, row_count, self.rows, column_count, self.columns)
        blocks = tf.reshape(tf.pad(matrices, padding), grid)
        sizes = np.pad(np.ones((1, view.inputs, view.outputs), np.float32), padding)
        return tf.reduce_sum(blocks, axis=(2, 4)) / sizes.reshape(grid).sum((2, 4))

    def expand_mask(self, kept: Any, target: Target) -> Any:
        """Repeat the flag of each block over its weights."""
        view = target.matrix
        repeated = tf.repeat(tf.repeat(kept, self.rows, axis=1), self.columns, axis=2)
        return view.from_matrices(repeated[:, : view.inputs, : view.outputs])

    def _pool_as_tfmot(self, matrices: Any) -> Any:
        """Pool rows, then columns, with the same rounding as `pruning_utils.factorized_pool`."""
        pooled = matrices[:, tf.newaxis]  # (positions, 1, inputs, outputs)
        for size in (self.rows, self.columns):
            pooled = tf.nn.pool(pooled, [1, size], "AVG", strides=[1, size], padding="SAME")
            pooled = tf.transpose(pooled, (0, 1, 3, 2))
        return pooled[:, 0]
