"""Formulas for multiply-accumulates (MACs), one a family of layers, without a model.

One fused multiply-add is one MAC; FLOPs = 2 x MACs. Additions of a bias, activations,
normalization, pooling and other elementwise work are not multiply-accumulates by this
convention (the one of the MobileNet and EfficientNet papers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def dense(positions: int, inputs: int, units: int) -> int:
    """Returns the MACs of a Dense layer applied at `positions` places (1 for a vector)."""
    return positions * inputs * units


def convolution(
    output_size: Sequence[int], kernel: Sequence[int], inputs: int, filters: int, groups: int = 1
) -> int:
    """Returns the MACs of a convolution.

    Args:
        output_size: Spatial size of the output.
        kernel: Spatial size of the kernel.
        inputs: Input channels.
        filters: Output channels.
        groups: Channel groups; each filter sees inputs / groups channels.
    """
    return math.prod(output_size) * math.prod(kernel) * (inputs // groups) * filters


def transposed_convolution(
    input_size: Sequence[int], kernel: Sequence[int], inputs: int, filters: int
) -> int:
    """Returns the MACs of a transposed convolution: each *input* position meets the kernel.

    Products that "same" padding crops from the border are counted: kernels compute them.
    """
    return math.prod(input_size) * math.prod(kernel) * inputs * filters


def depthwise_convolution(
    output_size: Sequence[int], kernel: Sequence[int], inputs: int, multiplier: int = 1
) -> int:
    """Returns the MACs of a depthwise convolution with `multiplier` filters a channel."""
    return math.prod(output_size) * math.prod(kernel) * inputs * multiplier


def recurrent(steps: int, inputs: int, units: int, gates: int) -> int:
    """Returns the MACs of a recurrent layer: kernels meet the input and the state at each step.

    Args:
        steps: Time steps (1 for a cell).
        inputs: Features of the input.
        units: Features of the state.
        gates: 4 for LSTM, 3 for GRU, 1 for a simple one.
    """
    return steps * gates * (inputs + units) * units


def attention(queries: int, keys: int, heads: int, key_size: int, value_size: int) -> int:
    """Returns the MACs of scores and of the weighted sums of values, projections apart."""
    return heads * queries * keys * (key_size + value_size)


def einsum(equation: str, *shapes: Sequence[int]) -> int:
    """Returns the MACs of a two-operand einsum: the product of all distinct index sizes.

    Args:
        equation: Such as "abc,cd->abd"; an ellipsis stands for the axes that letters leave.
        shapes: The operands' shapes; a batch axis of size 1 where batch is counted out.

    Raises:
        ValueError: Other than two operands, or labels that do not match the shapes.
    """
    labels = equation.replace(" ", "").split("->")[0].split(",")
    if len(labels) != 2 or len(shapes) != 2:
        raise ValueError(f"equation must have two operands. Received: {equation}.")
    sizes: dict[str | int, int] = {}
    for label, shape in zip(labels, shapes, strict=True):
        for letter, size in zip(_expanded(label, len(shape)), shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _expanded(label: str, rank: int) -> list[str | int]:
    """Returns a label's letters; the axes of an ellipsis are numbered from the last."""
    before, dots, after = label.partition("...")
    hidden = rank - len(before) - len(after)
    if not dots or hidden < 0:
        return list(label.replace("...", ""))
    return [*before, *range(hidden - 1, -1, -1), *after]


def matmul(left: Sequence[int], right: Sequence[int]) -> int:
    """Returns the MACs of a matrix product of stacks, broadcast as NumPy does.

    Args:
        left: (..., m, k), or (k,).
        right: (..., k, n), or (k,).
    """
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    stacks = np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2]))
    return math.prod(stacks) * rows * left[-1] * columns
