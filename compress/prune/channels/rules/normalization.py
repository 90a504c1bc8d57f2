"""Rules of normalization, activation and scaling layers, with weights along the channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.prune.channels.coupling.slots import LayerCall, Slots
from compress.prune.channels.rules._base import (
    apply_activation,
    apply_rule,
    layer_rule,
    normalize_axes,
    slice_constant,
)


@layer_rule("BatchNormalization")
def propagate_batch_normalization(call: LayerCall) -> Slots:
    """Bind scale, offset and statistics to the channels."""
    layer, x = call.layer, call.inputs[0]
    ids = x.axes[layer.axis]
    for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        call.bind(weight, 0, ids)
    only = x.tracked == (layer.axis % len(x.shape),)
    return call.passed(x, zero=only and (x.zero or layer.gamma is not None))


@layer_rule("LayerNormalization", "RMSNormalization", "UnitNormalization")
def propagate_layer_normalization(call: LayerCall) -> Slots:
    """Bind scale and offset to the normalized axes, over whose kept entries statistics are taken.

    An offset makes removed entries of the other axes nonzero.
    """
    layer, x = call.layer, call.inputs[0]
    axes = normalize_axes(layer.axis, len(x.shape))
    for weight in layer.weights:
        for index, axis in enumerate(axes):
            call.bind(weight, index, x.axes[axis])
    stays_zero = x.zero and getattr(layer, "beta", None) is None
    return call.passed(x, zero=stays_zero or set(x.tracked) <= set(axes))


@layer_rule("GroupNormalization")
def propagate_group_normalization(call: LayerCall) -> Slots:
    """Keep groups of equal size: the same positions are removed in each, or whole groups."""
    layer, x = call.layer, call.inputs[0]
    axis = layer.axis % len(x.shape)
    ids = x.axes[axis]
    for weight in (layer.gamma, layer.beta):
        call.bind(weight, 0, ids)
    call.freeze_axes(
        x, "a group normalization reduces over it", [a for a in x.tracked if a != axis]
    )
    out = call.out({axis: ids}, zero=True)
    if ids is None:
        return out
    groups = len(ids) if layer.groups == -1 else layer.groups
    if groups <= len(ids) // groups:
        call.link_columns(ids, groups)
    else:
        units = call.link_rows(ids, groups)
        call.config("groups", None if layer.groups == -1 else units)
    return out


@layer_rule("SpectralNormalization")
def propagate_spectral_normalization(call: LayerCall) -> list[Slots]:
    """Apply the rule of the wrapped layer, and bind the vector u to its output channels."""
    layer = call.layer
    result = apply_rule(
        call.create_inner_call(layer.layer, call.inputs, call.shapes, ("layer", "config"))
    )
    binding = call.graph.bindings.get((id(layer.kernel), len(layer.kernel.shape) - 1))
    call.bind(layer.vector_u, 1, None if binding is None else binding.ids)
    return result


@layer_rule("Normalization")
def propagate_normalization(call: LayerCall) -> Slots:
    """Slice mean and variance, which are constants of the config or weights set by `adapt`.

    Their axes are the layer's axes in increasing order; constants of lower rank are aligned at the
    end.
    """
    layer, x = call.layer, call.inputs[0]
    axes = sorted(axis % len(x.shape) for axis in layer.axis)
    for weight in (getattr(layer, "adapt_mean", None), getattr(layer, "adapt_variance", None)):
        for index, axis in enumerate(axes):
            call.bind(weight, index, x.axes[axis])

    def update_constants(config: dict[str, Any], kept: Any) -> None:
        for key in ("mean", "variance"):
            value = np.asarray(getattr(layer, f"input_{key}"))
            config[key] = slice_constant(value, [x.axes[axis] for axis in axes], kept).tolist()

    if layer.input_mean is not None:
        call.add_config_edit(update_constants)
    return call.passed(x, zero=False)


@layer_rule("Rescaling")
def propagate_rescaling(call: LayerCall) -> Slots:
    """Slice scale and offset, which may be lists with one number for each channel."""
    layer, x = call.layer, call.inputs[0]

    def update_constants(config: dict[str, Any], kept: Any) -> None:
        for key in ("scale", "offset"):
            value = np.asarray(getattr(layer, key))
            config[key] = slice_constant(value, x.axes[-1:], kept).tolist()

    call.add_config_edit(update_constants)
    return call.passed(x, zero=x.zero and not np.any(np.asarray(layer.offset)))


@layer_rule("Activation")
def propagate_activation(call: LayerCall) -> Slots:
    """Apply an activation function that is used as a layer."""
    return apply_activation(call, call.inputs[0], call.layer.activation)


@layer_rule("ELU", "LeakyReLU", "ReLU")
def propagate_relu(call: LayerCall) -> Slots:
    """Propagate slots through a ReLU; a threshold with a slope does not map 0 to 0."""
    x, layer = call.inputs[0], call.layer
    is_shifted = getattr(layer, "threshold", 0) and layer.negative_slope
    return call.passed(x, zero=x.zero and not is_shifted)


@layer_rule("PReLU")
def propagate_prelu(call: LayerCall) -> Slots:
    """Bind the slopes, which have the input's shape without batch; shared axes have size 1."""
    layer, x = call.layer, call.inputs[0]
    shared = set(layer.shared_axes or ())
    for axis in range(1, len(x.shape)):
        call.bind(layer.alpha, axis - 1, None if axis in shared else x.axes[axis])
    return call.passed(x)


@layer_rule("LayerScale")
def propagate_layer_scale(call: LayerCall) -> Slots:
    """Bind ConvNeXt's scale, one factor for each channel, to the last axis."""
    x = call.inputs[0]
    call.bind(call.layer.gamma, 0, x.axes[-1])
    call.config("projection_dim", x.axes[-1])
    return call.passed(x, zero=x.zero or x.tracked == (len(x.shape) - 1,))
