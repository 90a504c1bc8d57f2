"""Counting rules of layers and of raw operations (`keras.ops`).

A rule returns the multiply-accumulates (MACs) of one call; rules of layers do so for one entry of
the first axis. One fused multiply-add is one MAC, and FLOPs = 2 x MACs. Bias additions,
activations, normalization, pooling and other elementwise work are not MACs (the convention of the
MobileNet and EfficientNet papers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compress.model.keras_internals import find_attention_projection
from compress.model.layers import (
    ELEMENTWISE,
    NORMALIZES,
    POOLS,
    REDUCES,
    UNCOUNTED,
    find_layer_class,
    find_named_class,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class CallShapes:
    """One call with known shapes.

    Attributes:
        operation: The layer or raw operation.
        args, kwargs: Arguments of the call; tensors are replaced by `ShapePlaceholder`.
        inputs: Shapes of its tensor inputs, with the batch axis of size 1.
        outputs: Shapes of its outputs, with the batch axis of size 1.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]

    @property
    def source(self) -> Shape:
        """Shape of the first input without its batch axis."""
        return self.inputs[0][1:]

    @property
    def target(self) -> Shape:
        """Shape of the first output without its batch axis."""
        return self.outputs[0][1:]

    def find_shape(self, index: int, name: str) -> Shape:
        """Return the shape of an argument: a tensor, a variable or a constant.

        Args:
            index: Position of the argument.
            name: Keyword of the argument.
        """
        value = self.args[index] if index < len(self.args) else self.kwargs.get(name)
        if isinstance(value, ShapePlaceholder):
            return value.shape
        return tuple(int(size) for size in np.shape(value)) if value is not None else ()


@dataclass(frozen=True)
class ShapePlaceholder:
    """Shape of a tensor, in place of the tensor among a call's arguments."""

    shape: Shape


Rule = Callable[[CallShapes], int]


class Uncountable(Exception):
    """Exception with the reason that a call is not counted."""


def find_rule(operation: Any) -> Rule | None:
    """Return the counting rule of a layer or raw operation; None if it has none.

    Keras has two classes named Dot: a layer and an operation. The first axis of a layer's input is
    its batch: 1, or more if positions are folded into it.
    """
    work = find_layer_class(operation).work
    rule = (
        _count_dot_layer if work == "dot" and hasattr(operation, "normalize") else RULES.get(work)
    )
    return OPERATION_RULES.get(work) if rule is None else partial(_count_batch, rule)


def count_other_ops(kind: str, source: int, target: int, window: int) -> int:
    """Return the number of elementwise operations of a call, see `UNCOUNTED`.

    Args:
        kind: Class name.
        source: Number of elements of the first input.
        target: Number of elements of all outputs.
        window: Number of elements of a pooling window.
    """
    works = {REDUCES: source, POOLS: target * window, NORMALIZES: 2 * target, ELEMENTWISE: target}
    return works.get(find_named_class(kind).work, 0)


def _count_positions(layer: Any, shape: Shape) -> int:
    """Return the number of positions of a shape without its batch axis."""
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _count_kernel_weights(layer: Any, *names: str) -> int:
    """Return the number of weights in kernels; each position uses every weight once."""
    return sum(math.prod(getattr(layer, name).shape) for name in names)


def _build_convolution_rule(*names: str, side: str = "target") -> Rule:
    """Return the rule of a convolution.

    Args:
        names: Attribute names of its kernels.
        side: "target" if positions of the output count, "source" for those of the input.
    """
    return lambda call: (
        _count_positions(call.operation, getattr(call, side))
        * _count_kernel_weights(call.operation, *names)
    )


def _count_einsum_dense(call: CallShapes) -> int:
    layer = call.operation
    return count_einsum(layer.equation, (1, *call.source), tuple(layer.kernel.shape))


def _count_reversible_embedding(call: CallShapes) -> int:
    """Return 0 for a lookup; with reverse=True the MACs of the product with the table."""
    if not call.kwargs.get("reverse", False) and True not in call.args[1:]:
        return 0
    table: tuple[int, ...] = tuple(call.operation.embeddings.shape)
    return math.prod(call.source[:-1]) * math.prod(table)


def _count_cell_macs(cell: Any) -> int:
    """Return the MACs of one step: the kernels of all gates times input and state."""
    kind = type(cell).__name__
    if kind == "StackedRNNCells":
        return sum(map(_count_cell_macs, cell.cells))
    if find_named_class(kind).work != "recurrent_cell":
        raise Uncountable(f"no counting rule for recurrent cells of class {kind}")
    return _count_kernel_weights(cell, "kernel", "recurrent_kernel")


def _count_conv_lstm(call: CallShapes) -> int:
    """Return the MACs of convolutions of the input and of the state, for all gates.

    The state has the spatial size of the output.
    """
    layer = call.operation
    target = call.target[1:] if layer.return_sequences else call.target
    kernels = _count_kernel_weights(layer.cell, "kernel", "recurrent_kernel")
    return call.source[0] * _count_positions(layer, target) * kernels


def _count_bidirectional(call: CallShapes) -> int:
    layer = call.operation
    return sum(
        _count_inner(inner, call.inputs[0]) for inner in (layer.forward_layer, layer.backward_layer)
    )


def _count_time_distributed(call: CallShapes) -> int:
    steps, frame = call.source[0], (1, *call.source[1:])
    return steps * _count_inner(call.operation.layer, frame, (1, *call.target[1:]))


def _count_inner(layer: Any, source: Shape, target: Shape | None = None) -> int:
    """Return the MACs of a wrapper's inner layer (`target` None: inferred); raise Uncountable."""
    work = find_layer_class(layer).work
    if work in UNCOUNTED:
        return 0
    if work not in RULES:
        raise Uncountable(f"no counting rule for the {type(layer).__name__} inside")
    output_shape = tuple(layer.compute_output_shape(source)) if target is None else target
    return RULES[work](
        CallShapes(layer, (ShapePlaceholder(source),), {}, (source,), (output_shape,))
    )


# -- attention ------------------------------------------------------------------------------


def _count_attention(call: CallShapes, names: tuple[str, str, str]) -> int:
    """Return the MACs of projections, scores and weighted sums of values.

    Axes without attention are batch axes.

    Args:
        call: The call.
        names: Attributes with the number of heads and the sizes of keys and values.
    """
    layer = call.operation
    heads, key_size, value_size = (getattr(layer, name) for name in names)
    query = call.find_shape(0, "query")
    value = call.find_shape(1, "value") or query
    key = call.find_shape(2, "key") or value
    attention_axes = getattr(layer, "attention_axes", None) or range(1, len(query) - 1)
    shapes_by_part = {"query": query, "key": key, "value": value, "gate": query, "output": query}
    parts = [
        (shape, find_attention_projection(layer, name)) for name, shape in shapes_by_part.items()
    ]
    projections = sum(
        math.prod(shape[1:-1]) * math.prod(part.kernel.shape)
        for shape, part in parts
        if part is not None
    )
    queries, keys = math.prod(query[1:-1]), math.prod(key[axis] for axis in attention_axes)
    return int(projections) + count_attention(queries, keys, heads, key_size, value_size)


def _count_dot_attention(call: CallShapes) -> int:
    query, value = call.inputs[0], call.inputs[1]
    key = call.inputs[2] if len(call.inputs) > 2 else value
    dots = getattr(call.operation, "score_mode", "dot") == "dot"
    scores = query[-1] if dots else 0
    return int(query[-2] * key[-2] * (scores + value[-1]))


def _count_additive_attention(call: CallShapes) -> int:
    """Return the MACs of the weighted sum of values; scores are sums of tanh, elementwise."""
    query, value = call.inputs[0], call.inputs[1]
    return int(query[-2] * value[-2] * value[-1])


def _count_dot_layer(call: CallShapes) -> int:
    left, right = call.inputs
    axes = call.operation.axes
    first = (axes, axes) if isinstance(axes, int) else tuple(axes)
    contracted = left[first[0] % len(left)]
    return int(math.prod(left[1:]) * math.prod(right[1:]) // contracted)


RULES: dict[str, Rule] = {
    "convolution": _build_convolution_rule("kernel"),
    # products at the border that "same" padding crops are counted, because kernels compute them
    "transposed": _build_convolution_rule("kernel", side="source"),
    "depthwise": _build_convolution_rule("kernel"),
    "separable": _build_convolution_rule("depthwise_kernel", "pointwise_kernel"),
    "dense": lambda call: math.prod(call.source) * call.operation.units,
    "einsum_dense": _count_einsum_dense,
    "recurrent": lambda call: call.source[0] * _count_cell_macs(call.operation.cell),
    "recurrent_cell": lambda call: _count_cell_macs(call.operation),
    "convolutional_lstm": _count_conv_lstm,
    "reversible_embedding": _count_reversible_embedding,
    "bidirectional": _count_bidirectional,
    "time_distributed": _count_time_distributed,
    "wrapper": lambda call: _count_inner(call.operation.layer, call.inputs[0], call.outputs[0]),
    "multi_head_attention": partial(_count_attention, names=("num_heads", "key_dim", "value_dim")),
    "grouped_query_attention": partial(
        _count_attention, names=("num_query_heads", "head_dim", "head_dim")
    ),
    "dot_attention": _count_dot_attention,
    "additive_attention": _count_additive_attention,
}
"""Rules of layers, by `LayerClass.work` (see `compress.model.layers`)."""


def _count_batch(rule: Rule, call: CallShapes) -> int:
    return call.inputs[0][0] * rule(call)


def count_dot(call: CallShapes) -> int:
    """Return the MACs of `keras.ops.dot`, which contracts the last axis of the first operand."""
    left, right = call.find_shape(0, "x1"), call.find_shape(1, "x2")
    if not left or not right:
        return 0
    return math.prod(left) * math.prod(right) // left[-1]


def _count_tensordot_op(call: CallShapes) -> int:
    left, right, axes = call.find_shape(0, "x1"), call.find_shape(1, "x2"), call.operation.axes
    if isinstance(axes, int):
        contracted = math.prod(left[len(left) - axes :])
    else:
        chosen = axes[0] if isinstance(axes[0], (list, tuple)) else [axes[0]]
        contracted = math.prod(left[axis] for axis in chosen)
    return math.prod(left) * math.prod(right) // contracted


def _count_einsum_op(call: CallShapes) -> int:
    if len(call.inputs) == 1 and len(call.args) == 1:
        return 0
    shapes = [call.find_shape(index, "") for index in range(len(call.args))]
    return count_einsum(call.operation.subscripts, *shapes)


def _build_kernel_rule(last: int, side: str = "target") -> Rule:
    """Return the rule of a raw convolution.

    Args:
        last: End of the range of kernel axes that count for each position.
        side: "target" if elements of the output count, "source" for those of the input.
    """
    return lambda call: (
        math.prod(getattr(call, side)) * math.prod(call.find_shape(1, "kernel")[:last])
    )


def _count_raw_separable(call: CallShapes) -> int:
    pointwise = call.find_shape(2, "pointwise_kernel")
    kernels = math.prod(call.find_shape(1, "depthwise_kernel")) + math.prod(pointwise)
    return math.prod(call.target) // pointwise[-1] * kernels


def _count_dot_product_attention(call: CallShapes) -> int:
    query, key, value = call.inputs[:3]  # (batch, length, heads, size)
    return count_attention(query[1], key[1], query[2], query[3], value[3]) * query[0]


OPERATION_RULES: dict[str, Rule] = {
    "matmul": lambda call: count_matmul(call.find_shape(0, "x1"), call.find_shape(1, "x2")),
    "dot": count_dot,
    "vdot": lambda call: math.prod(call.find_shape(0, "x1")),
    "tensordot": _count_tensordot_op,
    "einsum": _count_einsum_op,
    # (size ..., channels of a group, filters)
    "raw_convolution": _build_kernel_rule(-1),
    # (size ..., channels, multiplier)
    "raw_depthwise": _build_kernel_rule(-2),
    "raw_separable": _count_raw_separable,
    # (size ..., filters, channels)
    "raw_transposed": _build_kernel_rule(-1, side="source"),
    "dot_product_attention": _count_dot_product_attention,
}
"""Rules of raw operations, by `LayerClass.work`."""


# -- formulas -------------------------------------------------------------------------------


def count_attention(queries: int, keys: int, heads: int, key_size: int, value_size: int) -> int:
    """Return the MACs of scores and weighted sums of values, without projections.

    Args:
        queries, keys: Number of query and key positions.
        heads: Number of attention heads.
        key_size, value_size: Size of keys and values per head.
    """
    return heads * queries * keys * (key_size + value_size)


def count_einsum(equation: str, *shapes: Sequence[int]) -> int:
    """Return the MACs of a two-operand einsum: the product of all distinct index sizes.

    Args:
        equation: Such as "abc,cd->abd"; an ellipsis represents the axes without letters.
        shapes: Shapes of the operands; the batch axis has size 1 if the batch should not count.

    Raises:
        ValueError: There are not exactly two operands, or labels do not match the shapes.
    """
    labels = equation.replace(" ", "").split("->")[0].split(",")
    if len(labels) != 2 or len(shapes) != 2:
        raise ValueError(f"equation must have two operands. Received: {equation}.")
    sizes: dict[str | int, int] = {}
    for label, shape in zip(labels, shapes, strict=True):
        for letter, size in zip(_expand_label(label, len(shape)), shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def _expand_label(label: str, rank: int) -> list[str | int]:
    """Return the letters of a label; axes of an ellipsis are numbered from the last."""
    before, dots, after = label.partition("...")
    hidden = rank - len(before) - len(after)
    if not dots or hidden < 0:
        return list(label.replace("...", ""))
    return [*before, *range(hidden - 1, -1, -1), *after]


def count_matmul(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the MACs of a product of stacked matrices, broadcast as in NumPy.

    Args:
        left: Shape (..., m, k), or (k,).
        right: Shape (..., k, n), or (k,).
    """
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    stacks = np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2]))
    return math.prod(stacks) * rows * left[-1] * columns
