"""Normalization, activation and scaling layers, whose weights lie along the channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.rules._base import (
    activated,
    apply,
    axes_of,
    layer_rule,
    over_axes,
    sliced_constant,
)


@layer_rule("BatchNormalization")
def batch_normalization(call: LayerCall) -> Slots:
    """Scale, offset and statistics have one entry a channel."""
    layer, x = call.layer, call.inputs[0]
    ids = x.axes[layer.axis]
    for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        call.bind(weight, 0, ids)
    only = x.tracked == (layer.axis % len(x.shape),)
    return call.passed(x, zero=only and (x.zero or layer.gamma is not None))


@layer_rule("LayerNormalization")
def layer_normalization(call: LayerCall) -> Slots:
    """Scale and offset have the shape of the normalized axes."""
    layer, x = call.layer, call.inputs[0]
    axes = axes_of(layer.axis, len(x.shape))
    for weight in (layer.gamma, layer.beta):
        for place, axis in enumerate(axes):
            call.bind(weight, place, x.axes[axis])
    return over_axes(call, x, axes, exact=set(x.tracked) <= set(axes))


@layer_rule("RMSNormalization")
def rms_normalization(call: LayerCall) -> Slots:
    """Scale has the shape of the normalized axes."""
    layer, x = call.layer, call.inputs[0]
    axes = axes_of(layer.axis, len(x.shape))
    for place, axis in enumerate(axes):
        call.bind(layer.scale, place, x.axes[axis])
    return over_axes(call, x, axes, exact=set(x.tracked) <= set(axes) or x.zero)


@layer_rule("UnitNormalization")
def unit_normalization(call: LayerCall) -> Slots:
    """No weights; divides by the length over its axes."""
    x = call.inputs[0]
    axes = axes_of(call.layer.axis, len(x.shape))
    return over_axes(call, x, axes, exact=set(x.tracked) <= set(axes) or x.zero)


@layer_rule("GroupNormalization")
def group_normalization(call: LayerCall) -> Slots:
    """Groups keep equal numbers: the same positions in each, or whole groups leave."""
    layer, x = call.layer, call.inputs[0]
    axis = layer.axis % len(x.shape)
    ids = x.axes[axis]
    for weight in (layer.gamma, layer.beta):
        call.bind(weight, 0, ids)
    call.barrier(x, "a group normalization reduces over it", [a for a in x.tracked if a != axis])
    out = call.out({axis: ids})
    if ids is None:
        return over_axes(call, out, ())
    groups = len(ids) if layer.groups == -1 else layer.groups
    if groups <= len(ids) // groups:
        call.columns(ids, groups)
    else:
        units = call.rows(ids, groups)
        call.config("groups", None if layer.groups == -1 else units)
    return over_axes(call, out, (axis,))


@layer_rule("SpectralNormalization")
def spectral_normalization(call: LayerCall) -> list[Slots]:
    """The wrapped layer's rule; the vector u has one entry an output channel."""
    layer = call.layer
    result = apply(call.inside(layer.layer, call.inputs, call.shapes, ("layer", "config")))
    known = call.graph.bindings.get((id(layer.kernel), len(layer.kernel.shape) - 1))
    call.bind(layer.vector_u, 1, None if known is None else known.ids)
    return result


@layer_rule("Normalization")
def normalization(call: LayerCall) -> Slots:
    """Mean and variance are constants of the config, or weights that `adapt` set.

    Their axes are the layer's in rising order; constants of lower rank are aligned at the end.
    """
    layer, x = call.layer, call.inputs[0]
    axes = sorted(axis % len(x.shape) for axis in layer.axis)
    for weight in (getattr(layer, "adapt_mean", None), getattr(layer, "adapt_variance", None)):
        for place, axis in enumerate(axes):
            call.bind(weight, place, x.axes[axis])

    def change(config: dict[str, Any], kept: Any) -> None:
        for key in ("mean", "variance"):
            value = np.asarray(getattr(layer, f"input_{key}"))
            config[key] = sliced_constant(value, [x.axes[axis] for axis in axes], kept).tolist()

    if layer.input_mean is not None:
        call.edit(change)
    return call.passed(x, zero=False)


@layer_rule("Rescaling")
def rescaling(call: LayerCall) -> Slots:
    """Scale and offset may be lists, one number a channel."""
    layer, x = call.layer, call.inputs[0]

    def change(config: dict[str, Any], kept: Any) -> None:
        for key in ("scale", "offset"):
            value = np.asarray(getattr(layer, key))
            config[key] = sliced_constant(value, x.axes[-1:], kept).tolist()

    call.edit(change)
    return call.passed(x, zero=x.zero and not np.any(np.asarray(layer.offset)))


@layer_rule("Activation")
def activation(call: LayerCall) -> Slots:
    """Any activation function as a layer."""
    return activated(call, call.inputs[0], call.layer.activation)


@layer_rule("ELU", "LeakyReLU")
def elementwise(call: LayerCall) -> Slots:
    """Entry by entry, zero stays zero."""
    return call.passed(call.inputs[0])


@layer_rule("ReLU")
def relu(call: LayerCall) -> Slots:
    """Entry by entry; a positive threshold with a slope does not map 0 to 0."""
    x, layer = call.inputs[0], call.layer
    return call.passed(x, zero=x.zero and not (layer.threshold and layer.negative_slope))


@layer_rule("PReLU")
def prelu(call: LayerCall) -> Slots:
    """Slopes alpha of the input's shape without batch; shared axes have size 1."""
    layer, x = call.layer, call.inputs[0]
    shared = set(layer.shared_axes or ())
    for axis in range(1, len(x.shape)):
        call.bind(layer.alpha, axis - 1, None if axis in shared else x.axes[axis])
    return call.passed(x)


@layer_rule("LayerScale")
def layer_scale(call: LayerCall) -> Slots:
    """ConvNeXt's scale: one factor a channel, on the last axis."""
    x = call.inputs[0]
    call.bind(call.layer.gamma, 0, x.axes[-1])
    call.config("projection_dim", x.axes[-1])
    return call.passed(x, zero=x.zero or x.tracked == (len(x.shape) - 1,))
