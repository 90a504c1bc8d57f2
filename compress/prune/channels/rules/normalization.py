"""Normalization layers; those that reduce over channels take statistics of the kept ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._base import inner, layer_rule
from compress.prune.channels.rules._common import over_axes


def _axes(axis: Any, rank: int) -> list[int]:
    listed = [axis] if isinstance(axis, int) else list(axis)
    return [index % rank for index in listed]


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
    axes = _axes(layer.axis, len(x.shape))
    for weight in (layer.gamma, layer.beta):
        for place, axis in enumerate(axes):
            call.bind(weight, place, x.axes[axis])
    return over_axes(call, x, axes, exact=set(x.tracked) <= set(axes))


@layer_rule("RMSNormalization")
def rms_normalization(call: LayerCall) -> Slots:
    """Scale has the shape of the normalized axes."""
    layer, x = call.layer, call.inputs[0]
    axes = _axes(layer.axis, len(x.shape))
    for place, axis in enumerate(axes):
        call.bind(layer.scale, place, x.axes[axis])
    return over_axes(call, x, axes, exact=set(x.tracked) <= set(axes) or x.zero)


@layer_rule("UnitNormalization")
def unit_normalization(call: LayerCall) -> Slots:
    """No weights; divides by the length over its axes."""
    x = call.inputs[0]
    axes = _axes(call.layer.axis, len(x.shape))
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
    if ids is not None:
        _group(call, ids)
    axes = {axis: ids}
    out = call.out(axes)
    return over_axes(call, out, (axis,) if ids is not None else ())


def _group(call: LayerCall, ids: Ids) -> None:
    groups = call.layer.groups
    groups = len(ids) if groups == -1 else groups
    if groups > len(ids) // groups:
        units = call.rows(ids, groups)
        if call.layer.groups != -1:
            call.config("groups", units)
    else:
        call.columns(ids, groups)


@layer_rule("SpectralNormalization")
def spectral_normalization(call: LayerCall) -> list[Slots]:
    """The wrapped layer's rule; the vector u has one entry an output channel."""
    layer = call.layer
    result = inner(call, layer.layer, call.inputs, call.shapes, ("layer", "config"))
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
            for place in range(1, value.ndim + 1):
                ids = x.axes[axes[-place]]
                if ids is not None and value.shape[-place] == len(ids) > 1:
                    value = np.take(value, kept(ids), axis=-place)
            config[key] = value.tolist()

    if layer.input_mean is not None:
        call.edit(change)
    return call.passed(x, zero=False)


@layer_rule("Rescaling")
def rescaling(call: LayerCall) -> Slots:
    """Scale and offset may be lists, one number a channel."""
    layer, x = call.layer, call.inputs[0]
    ids = x.axes[-1]

    def change(config: dict[str, Any], kept: Any) -> None:
        for key in ("scale", "offset"):
            value = np.asarray(getattr(layer, key))
            if ids is not None and value.ndim and value.shape[-1] > 1:
                config[key] = np.take(value, kept(ids), axis=-1).tolist()

    call.edit(change)
    return call.passed(x, zero=x.zero and not np.any(np.asarray(layer.offset)))
