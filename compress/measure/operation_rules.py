"""Counting rules of raw operations (`keras.ops`)."""

from __future__ import annotations

import math

from compress.measure import macs
from compress.measure.call_shapes import Rule, Site


def _matmul(site: Site) -> int:
    return macs.matmul(site.shape_of(0, "x1"), site.shape_of(1, "x2"))


def dot(site: Site) -> int:
    """Counts `keras.ops.dot`: the last axis of the first meets one of the second."""
    left, right = site.shape_of(0, "x1"), site.shape_of(1, "x2")
    if not left or not right:
        return 0
    return math.prod(left) * math.prod(right) // left[-1]


def _vdot(site: Site) -> int:
    return math.prod(site.shape_of(0, "x1"))


def _tensordot(site: Site) -> int:
    left, right, axes = site.shape_of(0, "x1"), site.shape_of(1, "x2"), site.operation.axes
    if isinstance(axes, int):
        contracted = math.prod(left[len(left) - axes :])
    else:
        chosen = axes[0] if isinstance(axes[0], (list, tuple)) else [axes[0]]
        contracted = math.prod(left[axis] for axis in chosen)
    return math.prod(left) * math.prod(right) // contracted


def _einsum(site: Site) -> int:
    if len(site.inputs) == 1 and len(site.args) == 1:
        return 0
    shapes = [site.shape_of(place, "") for place in range(len(site.args))]
    return macs.einsum(site.operation.subscripts, *shapes)


def _conv_op(site: Site) -> int:
    """The kernel holds (size ..., channels of a group, filters): each output meets it once."""
    kernel, target = site.shape_of(1, "kernel"), site.target
    filters = kernel[-1]
    return math.prod(target) // filters * math.prod(kernel[:-1]) * filters


def _depthwise_op(site: Site) -> int:
    kernel = site.shape_of(1, "kernel")
    return math.prod(site.target) * math.prod(kernel[:-2])


def _separable_op(site: Site) -> int:
    depthwise, pointwise = (
        site.shape_of(1, "depthwise_kernel"),
        site.shape_of(2, "pointwise_kernel"),
    )
    positions = math.prod(site.target) // pointwise[-1]
    return positions * (math.prod(depthwise) + math.prod(pointwise))


def _conv_transpose_op(site: Site) -> int:
    kernel = site.shape_of(1, "kernel")  # (size ..., filters, channels)
    return math.prod(site.source) // kernel[-1] * math.prod(kernel)


def _dot_product_attention(site: Site) -> int:
    query, key, value = site.inputs[:3]  # (batch, length, heads, size)
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
