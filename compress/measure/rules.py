"""Counting rules of layers: multiply-accumulates of one call for one entry of the first axis."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from compress.measure import macs
from compress.measure.call_shapes import Rule, Shape, Site, Sized, Uncountable
from compress.measure.operation_rules import OPERATION_RULES, dot


def _spatial(layer: Any, shape: Shape) -> Shape:
    """Returns the spatial part of a shape without batch axis, in the layer's data format."""
    return shape[1:] if layer.data_format == "channels_first" else shape[:-1]


def _channels(layer: Any, shape: Shape) -> int:
    return shape[0] if layer.data_format == "channels_first" else shape[-1]


def _conv(site: Site) -> int:
    layer = site.operation
    return macs.convolution(
        _spatial(layer, site.target),
        layer.kernel_size,
        _channels(layer, site.source),
        layer.filters,
        layer.groups,
    )


def _conv_transpose(site: Site) -> int:
    layer = site.operation
    return macs.transposed_convolution(
        _spatial(layer, site.source),
        layer.kernel_size,
        _channels(layer, site.source),
        layer.filters,
    )


def _depthwise(site: Site) -> int:
    layer = site.operation
    return macs.depthwise_convolution(
        _spatial(layer, site.target),
        layer.kernel_size,
        _channels(layer, site.source),
        layer.depth_multiplier,
    )


def _separable(site: Site) -> int:
    layer = site.operation
    inner = _channels(layer, site.source) * layer.depth_multiplier
    pointwise = macs.convolution(_spatial(layer, site.target), (1,), inner, layer.filters)
    return _depthwise(site) + pointwise


def _dense(site: Site) -> int:
    return macs.dense(math.prod(site.source[:-1]), site.source[-1], site.operation.units)


def _einsum_dense(site: Site) -> int:
    layer = site.operation
    return macs.einsum(layer.equation, (1, *site.source), tuple(layer.kernel.shape))


def _reversible(site: Site) -> int:
    """Looks up, or (reverse=True) multiplies by the transposed table."""
    if not site.kwargs.get("reverse", False) and True not in site.args[1:]:
        return 0
    table: tuple[int, ...] = tuple(site.operation.embeddings.shape)
    return math.prod(site.source[:-1]) * math.prod(table)


# -- recurrent layers -----------------------------------------------------------------------

_GATES = {"LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}


def _cell_macs(cell: Any, inputs: int) -> tuple[int, int]:
    """Returns the MACs of one step of a cell and the size of its output."""
    kind = type(cell).__name__
    if kind in _GATES:
        return macs.recurrent(1, inputs, cell.units, _GATES[kind]), cell.units
    if kind == "StackedRNNCells":
        total = 0
        for inner in cell.cells:
            count, inputs = _cell_macs(inner, inputs)
            total += count
        return total, inputs
    raise Uncountable(f"no counting rule for recurrent cells of class {kind}")


def _rnn(site: Site) -> int:
    layer = site.operation
    cell = layer.cell
    return site.source[0] * _cell_macs(cell, site.source[-1])[0]


def _cell(site: Site) -> int:
    return _cell_macs(site.operation, site.source[-1])[0]


def _conv_lstm(site: Site) -> int:
    """Four gates: a convolution of the input, and one of the state that keeps its size."""
    layer = site.operation
    cell = layer.cell
    frame = site.source[1:]
    target = site.target[1:] if layer.return_sequences else site.target
    places = _spatial(layer, target)
    size = cell.kernel_size
    of_input = macs.convolution(places, size, _channels(layer, frame), cell.filters)
    of_state = macs.convolution(places, size, cell.filters, cell.filters)
    return int(site.source[0] * 4 * (of_input + of_state))


def _bidirectional(site: Site) -> int:
    layer = site.operation
    return sum(
        _of_inner(inner, site.inputs[0]) for inner in (layer.forward_layer, layer.backward_layer)
    )


def _time_distributed(site: Site) -> int:
    steps, frame = site.source[0], (1, *site.source[1:])
    return steps * _of_inner(site.operation.layer, frame, (1, *site.target[1:]))


def _wrapped(site: Site) -> int:
    return _of_inner(site.operation.layer, site.inputs[0], site.outputs[0])


def _of_inner(layer: Any, source: Shape, target: Shape | None = None) -> int:
    from compress.measure.op_classes import COUNTED_ZERO

    kind = type(layer).__name__
    if kind in COUNTED_ZERO:
        return 0
    if kind not in RULES:
        raise Uncountable(f"no counting rule for the {kind} inside")
    made = tuple(layer.compute_output_shape(source)) if target is None else target
    return RULES[kind](Site(layer, (Sized(source),), {}, (source,), (made,)))


# -- attention ------------------------------------------------------------------------------


def _multi_head(site: Site) -> int:
    layer = site.operation
    return _attended(site, layer.num_heads, layer.key_dim, layer.value_dim)


def _grouped(site: Site) -> int:
    layer = site.operation
    return _attended(site, layer.num_query_heads, layer.head_dim, layer.head_dim)


def _attended(site: Site, heads: int, size: int, width: int) -> int:
    """Projections by their kernels, then scores and weighted sums of values.

    Axes that attention does not run over are batch axes.
    """
    layer = site.operation
    query = site.shape_of(0, "query")
    value = site.shape_of(1, "value") or query
    key = site.shape_of(2, "key") or value
    over = getattr(layer, "_attention_axes", None) or range(1, len(query) - 1)
    parts = (
        (query, "_query_dense"),
        (key, "_key_dense"),
        (value, "_value_dense"),
        (query, "_gate_dense"),
        (query, "_output_dense"),
    )
    projections = sum(
        math.prod(shape[1:-1]) * math.prod(getattr(layer, name).kernel.shape)
        for shape, name in parts
        if getattr(layer, name, None) is not None
    )
    queries, keys = math.prod(query[1:-1]), math.prod(key[axis] for axis in over)
    return int(projections) + macs.attention(queries, keys, heads, size, width)


def _luong(site: Site) -> int:
    query, value = site.inputs[0], site.inputs[1]
    key = site.inputs[2] if len(site.inputs) > 2 else value
    scores = 0
    if getattr(site.operation, "score_mode", "dot") == "dot":
        scores = query[-1]
    return int(query[-2] * key[-2] * (scores + value[-1]))


def _additive(site: Site) -> int:
    """Scores are sums of tanh, elementwise work; the weighted sum of values is counted."""
    query, value = site.inputs[0], site.inputs[1]
    return int(query[-2] * value[-2] * value[-1])


def _dot_layer(site: Site) -> int:
    left, right = site.inputs
    axes = site.operation.axes
    first = (axes, axes) if isinstance(axes, int) else tuple(axes)
    contracted = left[first[0] % len(left)]
    return int(math.prod(left[1:]) * math.prod(right[1:]) // contracted)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN"), _rnn),
    **dict.fromkeys(("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"), _cell),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _conv_lstm),
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "ReversibleEmbedding": _reversible,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": _wrapped,
    "MultiHeadAttention": _multi_head,
    "GroupedQueryAttention": _grouped,
    "Attention": _luong,
    "AdditiveAttention": _additive,
}


def rule_of(operation: Any) -> Rule | None:
    """Returns the rule of a layer or raw operation; two classes of Keras are called Dot.

    The first axis of a layer's input is its batch: 1, or more where positions were folded in.
    """
    kind = type(operation).__name__
    if kind in OPERATION_RULES:
        return OPERATION_RULES[kind]
    if kind == "Dot" and not hasattr(operation, "normalize"):
        return dot
    rule = _dot_layer if kind == "Dot" else RULES.get(kind)
    return None if rule is None else partial(_of_batch, rule)


def _of_batch(rule: Rule, site: Site) -> int:
    return site.inputs[0][0] * rule(site)
