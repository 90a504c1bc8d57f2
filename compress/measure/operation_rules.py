"""Counting rules of raw operations (`keras.ops`)."""

from __future__ import annotations

import math

from compress.measure import macs
from compress.measure.call_shapes import CallShapes, Rule


def _matmul(call: CallShapes) -> int:
    return macs.matmul(call.shape_of(0, "x1"), call.shape_of(1, "x2"))


def dot(call: CallShapes) -> int:
    """Counts `keras.ops.dot`: the last axis of the first meets one of the second."""
    left, right = call.shape_of(0, "x1"), call.shape_of(1, "x2")
    if not left or not right:
        return 0
    return math.prod(left) * math.prod(right) // left[-1]


def _vdot(call: CallShapes) -> int:
    return math.prod(call.shape_of(0, "x1"))


def _tensordot(call: CallShapes) -> int:
    left, right, axes = call.shape_of(0, "x1"), call.shape_of(1, "x2"), call.operation.axes
    if isinstance(axes, int):
        contracted = math.prod(left[len(left) - axes :])
    else:
        chosen = axes[0] if isinstance(axes[0], (list, tuple)) else [axes[0]]
        contracted = math.prod(left[axis] for axis in chosen)
    return math.prod(left) * math.prod(right) // contracted


def _einsum(call: CallShapes) -> int:
    if len(call.inputs) == 1 and len(call.args) == 1:
        return 0
    shapes = [call.shape_of(place, "") for place in range(len(call.args))]
    return macs.einsum(call.operation.subscripts, *shapes)


def _conv_op(call: CallShapes) -> int:
    """The kernel holds (size ..., channels of a group, filters): each output meets it once."""
    kernel, target = call.shape_of(1, "kernel"), call.target
    filters = kernel[-1]
    return math.prod(target) // filters * math.prod(kernel[:-1]) * filters


def _depthwise_op(call: CallShapes) -> int:
    kernel = call.shape_of(1, "kernel")
    return math.prod(call.target) * math.prod(kernel[:-2])


def _separable_op(call: CallShapes) -> int:
    depthwise, pointwise = (
        call.shape_of(1, "depthwise_kernel"),
        call.shape_of(2, "pointwise_kernel"),
    )
    positions = math.prod(call.target) // pointwise[-1]
    return positions * (math.prod(depthwise) + math.prod(pointwise))


def _conv_transpose_op(call: CallShapes) -> int:
    kernel = call.shape_of(1, "kernel")  # (size ..., filters, channels)
    return math.prod(call.source) // kernel[-1] * math.prod(kernel)


def _dot_product_attention(call: CallShapes) -> int:
    query, key, value = call.inputs[:3]  # (batch, length, heads, size)
    return macs.attention(query[1], key[1], query[2], query[3], value[3]) * query[0]


OPERATION_RULES: dict[str, Rule] = {
    "Matmul": _matmul,
    "Inner": dot,
    "Vdot": _vdot,
    "Tensordot": _tensordot,
    "Einsum": _einsum,
    "Conv": _conv_op,
    "DepthwiseConv": _depthwise_op,
    "SeparableConv": _separable_op,
    "ConvTranspose": _conv_transpose_op,
    "DotProductAttention": _dot_product_attention,
}
