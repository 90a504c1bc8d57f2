"""Convolutions: plain, grouped, transposed, depthwise, separable; 1D to 3D."""

from __future__ import annotations

import math

import numpy as np

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Ids, Slots
from compress.prune.channels.rules._base import layer_rule
from compress.prune.channels.rules._common import (
    activated,
    channel_axis,
    channels_only,
    spatial_positions,
)

WHAT = "a convolution"


@layer_rule("Conv1D", "Conv2D", "Conv3D")
def convolution(call: LayerCall) -> Slots:
    """Kernel (*size, in / groups, out)."""
    layer = call.layer
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return call.unknown("LoRA and quantized kernels have no rule")[0]
    axis = channel_axis(layer, len(call.shapes[0]))
    x = channels_only(call, call.inputs[0], axis, WHAT)
    positions = spatial_positions(call.shapes[0], axis) * math.prod(layer.kernel_size)
    if layer.groups > 1:
        out = _grouped(call, x, axis, positions)
    else:
        out = call.new(layer.filters)
        call.bind(layer.kernel, -2, x.axes[axis])
        call.macs(positions, _size(x, axis, layer.kernel.shape[-2]), out)
    if out is not None:
        call.bind(layer.kernel, -1, out)
        call.bind(layer.bias, 0, out)
        call.config("filters", out)
    return activated(call, call.out({axis: out}, zero=True), layer.activation)


def _grouped(call: LayerCall, x: Slots, axis: int, positions: int) -> Ids | None:
    """Couples the channels of a grouped convolution.

    Groups must keep equal numbers of channels. Either whole groups are removed (the only
    way with one channel a group, as in depthwise convolutions), or the same positions in
    every group. The finer of the two is chosen.
    """
    layer = call.layer
    groups, filters, ids = layer.groups, layer.filters, x.axes[axis]
    inside, outside = layer.kernel.shape[-2], filters // groups
    out = call.new(filters)
    if ids is not None and groups > min(inside, outside):
        call.link(call.rows(ids, groups), call.rows(out, groups))
        units = out.reshape(groups, -1)[:, 0]
        call.config("groups", units)
        call.macs(positions, inside, out)
        return out
    if outside == 1:
        call.freeze(out, f"one filter for each channel of a fixed input ({x.origin})")
    call.columns(out, groups)
    first = None if ids is None else call.columns(ids, groups)
    call.bind(layer.kernel, -2, first)
    call.macs(positions, inside if first is None else first, out)
    return out


@layer_rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(call: LayerCall) -> Slots:
    """Kernel (*size, out, in); every input position meets the kernel."""
    layer = call.layer
    axis = channel_axis(layer, len(call.shapes[0]))
    x = channels_only(call, call.inputs[0], axis, WHAT)
    out = call.new(layer.filters)
    call.bind(layer.kernel, -1, x.axes[axis])
    call.bind(layer.kernel, -2, out)
    call.bind(layer.bias, 0, out)
    call.config("filters", out)
    positions = spatial_positions(x.shape, axis) * math.prod(layer.kernel_size)
    call.macs(positions, _size(x, axis, layer.kernel.shape[-1]), out)
    return activated(call, call.out({axis: out}, zero=True), layer.activation)


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: LayerCall) -> Slots:
    """Kernel (*size, channels, multiplier): filters leave with their channel."""
    layer = call.layer
    axis = channel_axis(layer, len(call.shapes[0]))
    x = channels_only(call, call.inputs[0], axis, WHAT)
    out = _depthwise(call, x, axis, layer.kernel)
    call.bind(layer.bias, 0, out)
    return activated(call, call.out({axis: out}, zero=True), layer.activation)


@layer_rule("SeparableConv1D", "SeparableConv2D")
def separable(call: LayerCall) -> Slots:
    """A depthwise kernel, then a pointwise one (*ones, channels x multiplier, out)."""
    layer = call.layer
    axis = channel_axis(layer, len(call.shapes[0]))
    x = channels_only(call, call.inputs[0], axis, WHAT)
    between = _depthwise(call, x, axis, layer.depthwise_kernel)
    out = call.new(layer.filters)
    call.bind(layer.pointwise_kernel, -2, between)
    call.bind(layer.pointwise_kernel, -1, out)
    call.bind(layer.bias, 0, out)
    call.config("filters", out)
    width = layer.pointwise_kernel.shape[-2] if between is None else between
    call.macs(spatial_positions(call.shapes[0], axis), width, out)
    return activated(call, call.out({axis: out}, zero=True), layer.activation)


def _depthwise(call: LayerCall, x: Slots, axis: int, kernel: object) -> Ids | None:
    layer, ids = call.layer, x.axes[axis]
    call.bind(kernel, -2, ids)
    positions = spatial_positions(call.shapes[0], axis) * math.prod(layer.kernel_size)
    call.macs(positions, layer.depth_multiplier, _size(x, axis, x.shape[axis] or 1))
    return None if ids is None else np.repeat(ids, layer.depth_multiplier)


def _size(x: Slots, axis: int, size: int) -> Ids | int:
    ids = x.axes[axis]
    return size if ids is None else ids
