"""Layers and operations through which a channel's scale goes, is made, or is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.model.internals import attends_as, attention_part
from compress.quantization.equalizing.call import (
    FIRST,
    Call,
    last,
    layer_rule,
    operation_rule,
    width,
)
from compress.quantization.equalizing.channels import Ids

Made = Ids | list[Ids]
OTHER_KERNELS = "LoRA and quantized kernels are left as they are"


def _plain(layer: Any) -> bool:
    return not (getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))


# -- kernels ---------------------------------------------------------------------------------------


@layer_rule("Dense")
def dense(call: Call) -> Made:
    """Kernel (in, units)."""
    layer = call.layer
    if not _plain(layer):
        return call.fixed(OTHER_KERNELS)
    call.reads(layer.kernel, call.inputs[0][:, None])
    return _out(call, layer.units, layer.kernel)


@layer_rule("Conv1D", "Conv2D", "Conv3D")
def convolution(call: Call) -> Made:
    """Kernel (*size, in / groups, out): an output reads the channels of its group."""
    layer, ids = call.layer, call.inputs[0]
    if layer.data_format != "channels_last":
        return call.fixed(FIRST)
    if not _plain(layer):
        return call.fixed(OTHER_KERNELS)
    inside = ids.reshape(layer.groups, -1).T
    call.reads(layer.kernel, np.repeat(inside, layer.filters // layer.groups, axis=1))
    return _out(call, layer.filters, layer.kernel)


@layer_rule("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(call: Call) -> Made:
    """Kernel (*size, out, in)."""
    layer = call.layer
    if layer.data_format != "channels_last":
        return call.fixed(FIRST)
    call.reads(layer.kernel, call.inputs[0])
    out = call.channels.new(layer.filters)
    call.makes(layer.kernel, out[:, None])
    call.makes(layer.bias, out)
    return call.activated(out, layer.activation)


@layer_rule("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(call: Call) -> Made:
    """Kernel (*size, in, multiplier): each filter has a grid of its own."""
    layer, ids = call.layer, call.inputs[0]
    if layer.data_format != "channels_last":
        return call.fixed(FIRST)
    call.reads(layer.kernel, ids[:, None], shared=False)
    out = call.channels.new(len(ids) * layer.depth_multiplier)
    call.makes(layer.kernel, out.reshape(len(ids), -1))
    call.makes(layer.bias, out)
    return call.activated(out, layer.activation)


@layer_rule("SeparableConv1D", "SeparableConv2D")
def separable(call: Call) -> Made:
    """A depthwise kernel reads, a pointwise one makes."""
    layer = call.layer
    if layer.data_format != "channels_last":
        return call.fixed(FIRST)
    call.reads(layer.depthwise_kernel, call.inputs[0][:, None], shared=False)
    return _out(call, layer.filters, layer.pointwise_kernel)


def _out(call: Call, size: int, kernel: Any) -> Made:
    """Makes the channels of a kernel's last axis."""
    out = call.channels.new(size)
    call.makes(kernel, out)
    call.makes(call.layer.bias, out)
    return call.activated(out, call.layer.activation)


@layer_rule("MultiHeadAttention")
def attention(call: Call) -> Made:
    """Projections read its inputs, one makes its output; between them nothing is scaled."""
    layer, node = call.layer, call.node
    if not attends_as(layer, "MultiHeadAttention") or len(node.outputs) > 1:
        return call.fixed("what it computes is its own")
    given = dict(zip(("query", "value", "key"), node.args, strict=False)) | node.kwargs
    given["key"] = given.get("key", given["value"])
    for name in ("query", "key", "value"):
        part, place = attention_part(layer, name), call.input_of(given[name])
        if place is None or not _plain(part):
            return call.fixed(OTHER_KERNELS)
        call.reads(part.kernel, call.inputs[place][:, None, None], place)
    gate = attention_part(layer, "gate")
    output = attention_part(layer, "output")
    if gate is not None or len(output.kernel.shape) != 3:
        return call.fixed("what it computes is its own")
    out = call.channels.new(width(node.outputs[0]))
    call.makes(output.kernel, out)
    call.makes(output.bias, out)
    return out


# -- normalizations --------------------------------------------------------------------------------


@layer_rule("BatchNormalization", "GroupNormalization", "LayerNormalization")
def normalization(call: Call) -> Made:
    """Takes statistics of what comes in, makes what goes out."""
    layer, ids = call.layer, call.inputs[0]
    if not last(layer.axis, len(call.node.inputs[0].shape)):
        return call.fixed(FIRST)
    if layer.gamma is None:
        return call.fixed("it has no factor that could be scaled")
    for each in call.inputs:
        call.channels.pin(each, f"'{call.node.name}' takes statistics of them")
    out = call.channels.new(len(ids))
    call.makes(layer.gamma, out)
    call.makes(layer.beta, out)
    return out


# -- what lets scales through ----------------------------------------------------------------------


@layer_rule("ReLU")
def rectifier(call: Call) -> Made:
    """Without a limit or a threshold, of any slope."""
    if call.layer.max_value is not None or call.layer.threshold:
        return call.fixed("it has a limit or a threshold")
    return call.inputs[0]


@layer_rule("Activation")
def activation(call: Call) -> Made:
    """The function that it was given."""
    return call.activated(call.inputs[0], call.layer.activation)


@layer_rule(
    "Cropping1D", "Cropping2D", "Cropping3D", "Dropout", "GaussianDropout", "Identity", "LeakyReLU",
    "PReLU", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "UpSampling1D",
)  # fmt: skip
@operation_rule("Identity", "LeakyRelu", "Relu")
def passed(call: Call) -> Made:
    """Channel by channel, with f(s x) = s f(x)."""
    if getattr(call.layer, "data_format", None) == "channels_first":
        return call.fixed(FIRST)
    return call.inputs[0]


@layer_rule(
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "GlobalAveragePooling1D",
    "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GlobalMaxPooling3D", "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "UpSampling2D",
    "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D",
)  # fmt: skip
def spatial(call: Call) -> Made:
    """Over positions alone."""
    if call.layer.data_format != "channels_last":
        return call.fixed(FIRST)
    if len(call.inputs) > 1:
        return call.fixed("it is called with a mask")
    return call.inputs[0]


@layer_rule("Flatten", "Reshape")
@operation_rule("Reshape")
def reshaped(call: Call) -> Made:
    """Channels stay the innermost: they repeat where positions join them."""
    ids = call.inputs[0]
    before, after = call.node.inputs[0].shape, call.node.outputs[0].shape
    channels_first = getattr(call.layer, "data_format", "channels_last") != "channels_last"
    if None in (before[-1], after[-1]) or after[-1] % len(ids) or channels_first:
        return call.fixed("it mixes channels and positions")
    if len(before) < 2 or len(after) < 2 or len(call.inputs) > 1:
        return call.fixed("it mixes channels and positions")
    return np.tile(ids, after[-1] // len(ids))


# -- what merges -----------------------------------------------------------------------------------


@layer_rule("Add", "Average", "Maximum", "Minimum", "Subtract")
@operation_rule("Add", "Maximum", "Minimum", "Subtract")
def merged(call: Call) -> Made:
    """Channel by channel: all of them are scaled alike."""
    ids, out = call.inputs[0], width(call.node.outputs[0])
    if len(call.inputs) < 2 or any(len(each) != out for each in call.inputs):
        return call.fixed("it merges with a constant, or repeats channels")
    for other in call.inputs[1:]:
        call.channels.tie(ids, other)
    return ids


@layer_rule("Concatenate")
@operation_rule("Concatenate")
def joined(call: Call) -> Made:
    """Along the channels side by side; along positions all are scaled alike."""
    if last(call.layer.axis, len(call.node.outputs[0].shape)):
        return call.channels.join(call.inputs)
    for other in call.inputs[1:]:
        call.channels.tie(call.inputs[0], other)
    return call.inputs[0]
