"""Blocks: rectangles of input rows x output columns live or leave together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.prune.weights.patterns._base import Pattern

if TYPE_CHECKING:
    from compress.prune.weights.targets import Target


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
        """Needs a kernel that is a matrix at every position, at least as large as a block."""
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
        """Returns one magnitude a block, (positions, block rows, block columns)."""
        import tensorflow as tf

        matrices = target.matrix.matrices(tf.abs(weight))  # (positions, inputs, outputs)
        if target.kind == "Dense":
            return self._pooled_as_tfmot(matrices)
        padded = self._padded(matrices)
        blocks = tf.reshape(padded, self._grid(target))
        if self.pooling == "max":
            return tf.reduce_max(blocks, axis=(2, 4))
        ones = np.ones((1, target.matrix.inputs, target.matrix.outputs), np.float32)
        members = np.pad(
            ones, ((0, 0), *self._missing(target.matrix.inputs, target.matrix.outputs))
        )
        grid = (1, *self._grid(target)[1:])
        return tf.reduce_sum(blocks, axis=(2, 4)) / members.reshape(grid).sum((2, 4))

    def spread(self, kept: Any, target: Target) -> Any:
        """Repeats blocks over the weights that they hold."""
        import tensorflow as tf

        view = target.matrix
        wide = tf.repeat(tf.repeat(kept, self.rows, axis=1), self.columns, axis=2)
        return view.weight(wide[:, : view.inputs, : view.outputs])

    def _pooled_as_tfmot(self, matrices: Any) -> Any:
        """Pools heights, then widths, as `pruning_utils.factorized_pool` does: same rounding."""
        import tensorflow as tf

        pooled = matrices[:, tf.newaxis]  # (positions, 1, inputs, outputs)
        for size in (self.rows, self.columns):
            pooled = tf.nn.pool(
                pooled, [1, size], self.pooling.upper(), strides=[1, size], padding="SAME"
            )
            pooled = tf.transpose(pooled, (0, 1, 3, 2))
        return pooled[:, 0]

    def _grid(self, target: Target) -> tuple[int, int, int, int, int]:
        view = target.matrix
        return (
            view.positions,
            -(-view.inputs // self.rows),
            self.rows,
            -(-view.outputs // self.columns),
            self.columns,
        )

    def _missing(self, inputs: int, outputs: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, -inputs % self.rows), (0, -outputs % self.columns)

    def _padded(self, matrices: Any) -> Any:
        import tensorflow as tf

        _, inputs, outputs = matrices.shape
        return tf.pad(matrices, ((0, 0), *self._missing(inputs, outputs)))
