"""Rules of layers with kernels or tables: convolutions, Dense, EinsumDense, embeddings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import Ids, Kept, LayerCall, Slots, count_entries
from compress.prune.channels.rules._base import (
    apply_activation,
    count_positions,
    find_channel_axis,
    freeze_other_axes,
    get_arguments,
    layer_rule,
)
from compress.prune.channels.rules.contraction import expand_equation


@layer_rule("Conv1D", "Conv2D", "Conv3D")
def propagate_convolution(call: LayerCall) -> Slots:
    """Bind a kernel (*size, in / groups, out)."""
    layer = call.layer
    axis, x = _find_channels(call)
    positions = count_positions(call.shapes[0], axis) * math.prod(layer.kernel_size)
    if layer.groups > 1:
        out = _link_grouped_channels(call, x, axis, positions)
    else:
        out = call.new(layer.filters)
        call.bind(layer.kernel, -2, x.axes[axis])
        call.macs(positions, x.get_factor(axis), out)
    call.bind(layer.kernel, -1, out)
    call.config("filters", out)
    return _add_bias(call, axis, out)


def _find_channels(call: LayerCall) -> tuple[int, Slots]:
    """Return the channel axis, and the input with only that axis tracked."""
    axis = find_channel_axis(call.layer, len(call.shapes[0]))
    return axis, freeze_other_axes(call, call.inputs[0], axis, "a convolution")


def _add_bias(call: LayerCall, axis: int, out: Ids | None) -> Slots:
    """Return the output after the bias, if any, and the activation."""
    call.bind(call.layer.bias, 0, out)
    return apply_activation(call, call.out({axis: out}, zero=True), call.layer.activation)


def _link_grouped_channels(call: LayerCall, x: Slots, axis: int, positions: int) -> Ids:
    """Link the channels of a grouped convolution, and return the output channels.

    Groups must keep equal numbers of channels. Either whole groups are removed (the only way if a
    group has one channel, as in depthwise convolutions), or the same positions in every group. The
    finer of the two is chosen.
    """
    layer = call.layer
    groups, ids, inside = layer.groups, x.axes[axis], layer.kernel.shape[-2]
    out, outside = call.new(layer.filters), layer.filters // groups
    if ids is not None and groups > min(inside, outside):
        call.link(call.link_rows(ids, groups), call.link_rows(out, groups))
        call.config("groups", out.reshape(groups, -1)[:, 0])
        call.macs(positions, inside, out)
        return out
    if outside == 1:
        call.freeze(out, f"one filter for each channel of a fixed input ({x.origin})")
    call.link_columns(out, groups)
    first = None if ids is None else call.link_columns(ids, groups)
    call.bind(layer.kernel, -2, first)
    call.macs(positions, inside if first is None else first, out)
    return out


@layer_rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def propagate_transposed_convolution(call: LayerCall) -> Slots:
    """Bind a kernel (*size, out, in), which is applied at every input position."""
    layer = call.layer
    axis, x = _find_channels(call)
    out = call.new(layer.filters)
    call.bind(layer.kernel, -1, x.axes[axis])
    call.bind(layer.kernel, -2, out)
    call.config("filters", out)
    positions = count_positions(x.shape, axis) * math.prod(layer.kernel_size)
    call.macs(positions, x.get_factor(axis), out)
    return _add_bias(call, axis, out)


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def propagate_depthwise(call: LayerCall) -> Slots:
    """Bind a kernel (*size, channels, multiplier); filters are removed with their channel."""
    axis, x = _find_channels(call)
    return _add_bias(call, axis, _bind_depthwise(call, x, axis, call.layer.kernel))


@layer_rule("SeparableConv1D", "SeparableConv2D")
def propagate_separable(call: LayerCall) -> Slots:
    """Bind a depthwise kernel, then a pointwise one (*ones, channels x multiplier, out)."""
    layer = call.layer
    axis, x = _find_channels(call)
    between = _bind_depthwise(call, x, axis, layer.depthwise_kernel)
    out = call.new(layer.filters)
    call.bind(layer.pointwise_kernel, -2, between)
    call.bind(layer.pointwise_kernel, -1, out)
    call.config("filters", out)
    width = layer.pointwise_kernel.shape[-2] if between is None else between
    call.macs(count_positions(call.shapes[0], axis), width, out)
    return _add_bias(call, axis, out)


def _bind_depthwise(call: LayerCall, x: Slots, axis: int, kernel: object) -> Ids | None:
    layer, ids = call.layer, x.axes[axis]
    call.bind(kernel, -2, ids)
    positions = count_positions(call.shapes[0], axis) * math.prod(layer.kernel_size)
    call.macs(positions, layer.depth_multiplier, x.get_factor(axis))
    return None if ids is None else np.repeat(ids, layer.depth_multiplier)


@layer_rule("Dense")
def propagate_dense(call: LayerCall) -> Slots:
    """Bind a kernel (in, units), which is applied along the last axis."""
    layer, x = call.layer, call.inputs[0]
    ids, out = x.axes[-1], call.new(layer.units)
    call.bind(layer.kernel, 0, ids)
    call.bind(layer.kernel, 1, out)
    call.bind(layer.bias, 0, out)
    call.config("units", out)
    last = len(x.shape) - 1
    others = [x.axes[axis] for axis in x.tracked if axis != last]
    positions = count_entries(
        tuple(x.shape[axis] for axis in range(1, last) if x.axes[axis] is None)
    )
    call.macs(positions, *others, x.get_factor(last), out)
    axes = {**{axis: x.axes[axis] for axis in x.tracked}, last: out}
    # at a removed entry of another tracked axis the output is the bias
    zero = not others or (x.zero and layer.bias is None)
    return apply_activation(call, call.out(axes, zero=zero), layer.activation)


@layer_rule("EinsumDense")
def propagate_einsum_dense(call: LayerCall) -> Slots:
    """Bind kernel axes by the letters of the equation; equal letters share their slots."""
    layer, x = call.layer, call.inputs[0]
    shape = layer.kernel.shape
    (source, kernel), target = expand_equation(layer.equation, [len(x.shape), len(shape)])
    letters: dict[str, Ids | None] = dict(zip(source, x.axes, strict=True))
    for axis, letter in enumerate(kernel):
        if letter not in letters:
            letters[letter] = call.new(shape[axis])
        call.bind(layer.kernel, axis, letters[letter])
    for letter in source:
        if letter not in kernel and letter not in target and not x.zero:
            call.freeze(letters[letter], "an einsum sums over it and its entries are not zero")
    biased = [letter for letter in target if letter in (layer.bias_axes or "")]
    for axis, letter in enumerate(biased):
        call.bind(layer.bias, axis, letters[letter])

    def update_output_shape(config: dict[str, Any], kept: Kept) -> None:
        sizes = config["output_shape"]
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        for axis, letter in enumerate(target[len(target) - len(sizes) :]):
            ids = letters[letter]
            if ids is not None and sizes[axis] is not None:
                sizes[axis] = kept.count(ids)
        config["output_shape"] = tuple(sizes)

    call.add_config_edit(update_output_shape)
    sized = dict(zip(source, x.shape, strict=True)) | dict(zip(kernel, shape, strict=True))
    factors = [
        ids if (ids := letters[letter]) is not None else int(size or 1)
        for letter, size in sized.items()
    ]
    call.macs(1, *factors)
    # at a removed entry of an axis that the kernel lacks the output is the bias
    by_kernel = all(letters[letter] is None or letter in kernel for letter in target)
    axes = {axis: letters[letter] for axis, letter in enumerate(target)}
    out = call.out(axes, zero=by_kernel or (x.zero and layer.bias is None))
    return apply_activation(call, out, layer.activation)


@layer_rule("Embedding", "ReversibleEmbedding")
def propagate_embedding(call: LayerCall) -> Slots:
    """Bind a table (vocabulary, features), and (features, vocabulary) for reverse if untied.

    Both directions share the features, so a channel is removed in both; the vocabulary is fixed.
    Looking up rows takes no MACs.
    """
    layer, x = call.layer, call.inputs[0]
    call.link_by_weights()
    back = bool(get_arguments(call).get("reverse", False))
    if not back:
        call.freeze_axes(x, "it is an index into an embedding")
    ids = x.axes[-1] if back else call.new(layer.output_dim)
    call.bind(layer.embeddings, 1, ids)
    if not getattr(layer, "tie_weights", True):
        call.bind(layer.reverse_embeddings, 0, ids)
    call.config("output_dim", ids)
    last = len(call.shapes[0]) - 1
    if not back:
        return call.out({last: ids}, zero=True)
    others = {axis: x.axes[axis] for axis in x.tracked if axis != last}
    positions = count_entries(tuple(x.shape[axis] for axis in range(1, last) if axis not in others))
    width = layer.output_dim if ids is None else ids
    call.macs(positions, *others.values(), width, layer.input_dim)
    return call.out(others, zero=x.zero, origin=f"the vocabulary of layer '{call.name}'")
