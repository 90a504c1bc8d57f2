"""Formulas for multiply-accumulates (MACs), one a family of layers, without a model.

One fused multiply-add is one MAC; FLOPs = 2 x MACs. Additions of a bias, activations,
normalization, pooling and other elementwise work are not multiply-accumulates by this
convention (the one of the MobileNet and EfficientNet papers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def einsum(equation: str, *shapes: Sequence[int]) -> int:
    """Returns the MACs of a two-operand einsum: the product of all distinct index sizes.

    Args:
        equation: Without ellipsis, such as "abc,cd->abd".
        shapes: The operands' shapes; a batch axis of size 1 where batch is counted out.

    Raises:
        ValueError: An ellipsis, or labels that do not match the shapes.
    """
    if "." in equation:
        raise ValueError(f"equation must have no ellipsis. Received: {equation}.")
    labels = equation.replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for label, shape in zip(labels, shapes, strict=True):
        for letter, size in zip(label, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())
