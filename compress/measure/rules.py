"""Counting rules of layers and of raw operations (`keras.ops`), and their arguments.

A rule returns the multiply-accumulates (MACs) of one call; those of layers for one entry of the
first axis. One fused multiply-add is one MAC; FLOPs = 2 x MACs. Additions of a bias, activations,
normalization, pooling and other elementwise work are not multiply-accumulates by this convention
(the one of the MobileNet and EfficientNet papers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from compress.model.internals import attention_part
from compress.model.layers import (
    ELEMENTWISE,
    NORMALIZES,
    POOLS,
    REDUCES,
    UNCOUNTED,
    class_named,
    class_of,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class CallShapes:
    """One call with known shapes.

    Attributes:
        operation: The layer or raw operation.
        args, kwargs: What it is called with; tensors are replaced by their shapes (`Sized`).
        inputs: Shapes of its tensor inputs, the batch axis of size 1 among them.
        outputs: Shapes of its outputs.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]

    @property
    def source(self) -> Shape:
        """The first input without its batch axis."""
        return self.inputs[0][1:]

    @property
    def target(self) -> Shape:
        """The first output without its batch axis."""
        return self.outputs[0][1:]

    def shape_of(self, place: int, name: str) -> Shape:
        """Return the shape of an argument: a tensor, a variable or a constant."""
        value = self.args[place] if place < len(self.args) else self.kwargs.get(name)
        if isinstance(value, Sized):
            return value.shape
        return tuple(int(size) for size in np.shape(value)) if value is not None else ()


@dataclass(frozen=True)
class Sized:
    """Stands for a tensor among a call's arguments."""

    shape: Shape


Rule = Callable[[CallShapes], int]


class Uncountable(Exception):
    """Says why a call is not counted."""


def rule_of(operation: Any) -> Rule | None:
    """Return the rule of a layer or raw operation; two classes of Keras are called Dot.

    The first axis of a layer's input is its batch: 1, or more where positions were folded in.
    """
    work = class_of(operation).work
    rule = _dot_layer if work == "dot" and hasattr(operation, "normalize") else RULES.get(work)
    return OPERATION_RULES.get(work) if rule is None else partial(_of_batch, rule)


def other_ops(kind: str, source: int, target: int, window: int) -> int:
    """Return the elementwise operations of a call, by the convention of `UNCOUNTED`.

    Args:
        kind: Class name.
        source: Elements of the first input.
        target: Elements of all outputs.
        window: Elements of a pooling window.
    """
    works = {REDUCES: source, POOLS: target * window, NORMALIZES: 2 * target, ELEMENTWISE: target}
    return works.get(class_named(kind).work, 0)


def _positions(layer: Any, shape: Shape) -> int:
    """Return the positions of a shape without batch axis, in the layer's data format."""
    return math.prod(shape[1:] if layer.data_format == "channels_first" else shape[:-1])


def _kernels(layer: Any, *names: str) -> int:
    """Return the number of weights in kernels: each position meets every one once."""
    return sum(math.prod(getattr(layer, name).shape) for name in names)


def _convolution(*names: str, of: str = "target") -> Rule:
    """Make the rule of a convolution by its kernels' names and the tensor that they slide over."""
    return lambda call: (
        _positions(call.operation, getattr(call, of)) * _kernels(call.operation, *names)
    )


_conv = _convolution("kernel")
_separable = _convolution("depthwise_kernel", "pointwise_kernel")
# products that "same" padding crops from the border are counted: kernels compute them
_conv_transpose = _convolution("kernel", of="source")


def _dense(call: CallShapes) -> int:
    return int(math.prod(call.source) * call.operation.units)


def _einsum_dense(call: CallShapes) -> int:
    layer = call.operation
    return einsum(layer.equation, (1, *call.source), tuple(layer.kernel.shape))


def _reversible(call: CallShapes) -> int:
    """Look up, or (reverse=True) multiplies by the transposed table."""
    if not call.kwargs.get("reverse", False) and True not in call.args[1:]:
        return 0
    table: tuple[int, ...] = tuple(call.operation.embeddings.shape)
    return math.prod(call.source[:-1]) * math.prod(table)


def _cell_macs(cell: Any) -> int:
    """Return the MACs of one step: kernels of all gates meet the input and the state."""
    kind = type(cell).__name__
    if kind == "StackedRNNCells":
        return sum(map(_cell_macs, cell.cells))
    if class_named(kind).work != "recurrent_cell":
        raise Uncountable(f"no counting rule for recurrent cells of class {kind}")
    return _kernels(cell, "kernel", "recurrent_kernel")


def _rnn(call: CallShapes) -> int:
    return call.source[0] * _cell_macs(call.operation.cell)


def _cell(call: CallShapes) -> int:
    return _cell_macs(call.operation)


def _conv_lstm(call: CallShapes) -> int:
    """Convolutions of the input, and of the state, which keeps its size, for all gates."""
    layer = call.operation
    target = call.target[1:] if layer.return_sequences else call.target
    kernels = _kernels(layer.cell, "kernel", "recurrent_kernel")
    return call.source[0] * _positions(layer, target) * kernels


def _bidirectional(call: CallShapes) -> int:
    layer = call.operation
    return sum(
        _of_inner(inner, call.inputs[0]) for inner in (layer.forward_layer, layer.backward_layer)
    )


def _time_distributed(call: CallShapes) -> int:
    steps, frame = call.source[0], (1, *call.source[1:])
    return steps * _of_inner(call.operation.layer, frame, (1, *call.target[1:]))


def _wrapped(call: CallShapes) -> int:
    return _of_inner(call.operation.layer, call.inputs[0], call.outputs[0])


def _of_inner(layer: Any, source: Shape, target: Shape | None = None) -> int:
    work = class_of(layer).work
    if work in UNCOUNTED:
        return 0
    if work not in RULES:
        raise Uncountable(f"no counting rule for the {type(layer).__name__} inside")
    made = tuple(layer.compute_output_shape(source)) if target is None else target
    return RULES[work](CallShapes(layer, (Sized(source),), {}, (source,), (made,)))


# -- attention ------------------------------------------------------------------------------


def _multi_head(call: CallShapes) -> int:
    layer = call.operation
    return _attended(call, layer.num_heads, layer.key_dim, layer.value_dim)


def _grouped(call: CallShapes) -> int:
    layer = call.operation
    return _attended(call, layer.num_query_heads, layer.head_dim, layer.head_dim)


def _attended(call: CallShapes, heads: int, size: int, width: int) -> int:
    """Projections by their kernels, then scores and weighted sums of values.

    Axes that attention does not run over are batch axes.
    """
    layer = call.operation
    query = call.shape_of(0, "query")
    value = call.shape_of(1, "value") or query
    key = call.shape_of(2, "key") or value
    over = getattr(layer, "attention_axes", None) or range(1, len(query) - 1)
    fed = {"query": query, "key": key, "value": value, "gate": query, "output": query}
    parts = [(shape, attention_part(layer, name)) for name, shape in fed.items()]
    projections = sum(
        math.prod(shape[1:-1]) * math.prod(part.kernel.shape)
        for shape, part in parts
        if part is not None
    )
    queries, keys = math.prod(query[1:-1]), math.prod(key[axis] for axis in over)
    return int(projections) + attention(queries, keys, heads, size, width)


def _luong(call: CallShapes) -> int:
    query, value = call.inputs[0], call.inputs[1]
    key = call.inputs[2] if len(call.inputs) > 2 else value
    dots = getattr(call.operation, "score_mode", "dot") == "dot"
    scores = query[-1] if dots else 0
    return int(query[-2] * key[-2] * (scores + value[-1]))


def _additive(call: CallShapes) -> int:
    """Scores are sums of tanh, elementwise work; the weighted sum of values is counted."""
    query, value = call.inputs[0], call.inputs[1]
    return int(query[-2] * value[-2] * value[-1])


def _dot_layer(call: CallShapes) -> int:
    left, right = call.inputs
    axes = call.operation.axes
    first = (axes, axes) if isinstance(axes, int) else tuple(axes)
    contracted = left[first[0] % len(left)]
    return int(math.prod(left[1:]) * math.prod(right[1:]) // contracted)


RULES: dict[str, Rule] = {
    "convolution": _conv,
    "transposed": _conv_transpose,
    "depthwise": _conv,
    "separable": _separable,
    "dense": _dense,
    "einsum_dense": _einsum_dense,
    "recurrent": _rnn,
    "recurrent_cell": _cell,
    "convolutional_lstm": _conv_lstm,
    "reversible_embedding": _reversible,
    "bidirectional": _bidirectional,
    "time_distributed": _time_distributed,
    "wrapper": _wrapped,
    "multi_head_attention": _multi_head,
    "grouped_query_attention": _grouped,
    "dot_attention": _luong,
    "additive_attention": _additive,
}
"""Of layers, by the work of their classes (`compress.model.layers`)."""


def _of_batch(rule: Rule, call: CallShapes) -> int:
    return call.inputs[0][0] * rule(call)


def _matmul(call: CallShapes) -> int:
    return matmul(call.shape_of(0, "x1"), call.shape_of(1, "x2"))


def dot(call: CallShapes) -> int:
    """Count `keras.ops.dot`: the last axis of the first meets one of the second."""
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
    return einsum(call.operation.subscripts, *shapes)


def _kernel_op(last: int, of: str = "target") -> Rule:
    """Make the rule of a raw convolution, by the axes of its kernel that each number meets."""
    return lambda call: math.prod(getattr(call, of)) * math.prod(call.shape_of(1, "kernel")[:last])


_conv_op = _kernel_op(-1)  # (size ..., channels of a group, filters)
_depthwise_op = _kernel_op(-2)  # (size ..., channels, multiplier)
_conv_transpose_op = _kernel_op(-1, of="source")  # (size ..., filters, channels)


def _separable_op(call: CallShapes) -> int:
    pointwise = call.shape_of(2, "pointwise_kernel")
    kernels = math.prod(call.shape_of(1, "depthwise_kernel")) + math.prod(pointwise)
    return math.prod(call.target) // pointwise[-1] * kernels


def _dot_product_attention(call: CallShapes) -> int:
    query, key, value = call.inputs[:3]  # (batch, length, heads, size)
    return attention(query[1], key[1], query[2], query[3], value[3]) * query[0]


OPERATION_RULES: dict[str, Rule] = {
    "matmul": _matmul,
    "dot": dot,
    "vdot": _vdot,
    "tensordot": _tensordot,
    "einsum": _einsum,
    "raw_convolution": _conv_op,
    "raw_depthwise": _depthwise_op,
    "raw_separable": _separable_op,
    "raw_transposed": _conv_transpose_op,
    "dot_product_attention": _dot_product_attention,
}
"""Of raw operations, likewise."""


# -- formulas -------------------------------------------------------------------------------


def attention(queries: int, keys: int, heads: int, key_size: int, value_size: int) -> int:
    """Return the MACs of scores and of the weighted sums of values, projections apart."""
    return heads * queries * keys * (key_size + value_size)


def einsum(equation: str, *shapes: Sequence[int]) -> int:
    """Return the MACs of a two-operand einsum: the product of all distinct index sizes.

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
    """Return a label's letters; the axes of an ellipsis are numbered from the last."""
    before, dots, after = label.partition("...")
    hidden = rank - len(before) - len(after)
    if not dots or hidden < 0:
        return list(label.replace("...", ""))
    return [*before, *range(hidden - 1, -1, -1), *after]


def matmul(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the MACs of a matrix product of stacks, broadcast as NumPy does.

    Args:
        left: (..., m, k), or (k,).
        right: (..., k, n), or (k,).
    """
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    stacks = np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2]))
    return math.prod(stacks) * rows * left[-1] * columns
