"""Rules for layers and operations that move, repeat, pool or pass on values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from compress.model.layers import select_classes
from compress.quantization.call import Call
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_channels_first,
    refuse_whole_numbers,
)
from compress.quantization.values import Value


@layer_rule(
    "Flatten",
    "Reshape",
    "Permute",
    "RepeatVector",
    "Cropping1D",
    "Cropping2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
)
@operation_rule(
    "ExpandDims", "Flip", "GetItem", "Reshape", "Squeeze", "Transpose", "Moveaxis", "Swapaxes",
)  # fmt: skip
def quantize_rearrangement(call: Call) -> list[Value]:
    """Move or repeat values, on the same grid."""
    if len(call.inputs) > 1:
        raise KeptInFloats("a tensor gives the entries to move")
    return call.apply_on_grid(call.itself, call.inputs[0])


@layer_rule("Concatenate")
@operation_rule("Concatenate")
def quantize_concatenation(call: Call) -> list[Value]:
    """Concatenate values, on one grid."""
    refuse_whole_numbers(call)
    return call.apply_on_grid(call.itself, *call.inputs)


@layer_rule("MaxPooling1D", "MaxPooling2D")
def quantize_max_pooling(call: Call) -> list[Value]:
    """Apply max pooling, on the same grid."""
    refuse_channels_first(call)
    return call.apply_on_grid(call.itself, call.inputs[0])


@layer_rule("AveragePooling1D", "AveragePooling2D")
def quantize_average_pooling(call: Call) -> list[Value]:
    """Apply average pooling, rounded to the same grid."""
    refuse_channels_first(call)
    return call.apply_on_grid(call.itself, call.inputs[0], rounds=True, away=True)


@layer_rule("UpSampling1D", "UpSampling2D")
def quantize_upsampling(call: Call) -> list[Value]:
    """Repeat values on the same grid, or interpolate and round to it."""
    size = call.shape
    kind = getattr(call.layer, "interpolation", "nearest")
    if kind not in ("nearest", "bilinear"):
        raise KeptInFloats(f"{kind} interpolation has no integer kernel")
    refuse_channels_first(call)
    if None in size[1:]:
        raise KeptInFloats(OPEN_SIZE)
    if kind == "bilinear":
        return call.apply_on_grid(call.itself, call.inputs[0], rounds=True)
    pixels = size[1:3] if len(size) == 4 else (size[1], 1)

    def resize_nearest(x: Any) -> Any:
        image = x if len(size) == 4 else tf.expand_dims(x, 2)
        resized = tf.raw_ops.ResizeNearestNeighbor(images=image, size=tf.constant(pixels))
        return resized if len(size) == 4 else tf.squeeze(resized, 2)

    return call.apply_on_grid(call.wrap_function(resize_nearest, lambda _: size), call.inputs[0])


@layer_rule(*sorted(select_classes("inert") - {"Identity", "StopGradient"}))
def skip_training_only(call: Call) -> Value:
    """Keep a layer that only acts in training; in inference its input is passed on."""
    return call.pass_through(call.inputs[0], call.itself)


@layer_rule("Identity")
def skip_identity(call: Call) -> Value:
    """Skip an identity."""
    return call.inputs[0]
