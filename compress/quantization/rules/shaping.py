"""Layers and operations that move, repeat or pool values, or leave them as they are."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from compress.model.layers import select_classes
from compress.quantization.call import Call, Value
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_channels_first,
    refuse_whole_numbers,
)


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
def moved(call: Call) -> list[Value]:
    """Move or repeat values, on the same grid."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is told by a tensor what to move")
    return call.same(call.itself, call.inputs[0])


@layer_rule("Concatenate")
@operation_rule("Concatenate")
def concatenated(call: Call) -> list[Value]:
    """Join values, on one grid."""
    refuse_whole_numbers(call)
    return call.same(call.itself, *call.inputs)


@layer_rule("MaxPooling1D", "MaxPooling2D")
def largest(call: Call) -> list[Value]:
    """Select the largest values, on the same grid."""
    refuse_channels_first(call)
    return call.same(call.itself, call.inputs[0])


@layer_rule("AveragePooling1D", "AveragePooling2D")
def pooled_mean(call: Call) -> list[Value]:
    """Average values, rounded to the same grid."""
    refuse_channels_first(call)
    return call.same(call.itself, call.inputs[0], rounds=True, away=True)


@layer_rule("UpSampling1D", "UpSampling2D")
def repeated(call: Call) -> list[Value]:
    """Repeat values, on the same grid; interpolated ones are rounded to it."""
    size = call.shape
    kind = getattr(call.layer, "interpolation", "nearest")
    if kind not in ("nearest", "bilinear"):
        raise KeptInFloats(f"{kind} interpolation has no integer kernel")
    refuse_channels_first(call)
    if None in size[1:]:
        raise KeptInFloats(OPEN_SIZE)
    if kind == "bilinear":
        return call.same(call.itself, call.inputs[0], rounds=True)
    pixels = size[1:3] if len(size) == 4 else (size[1], 1)

    def enlarged(x: Any) -> Any:
        image = x if len(size) == 4 else tf.expand_dims(x, 2)
        made = tf.raw_ops.ResizeNearestNeighbor(images=image, size=tf.constant(pixels))
        return made if len(size) == 4 else tf.squeeze(made, 2)

    return call.same(call.applied(enlarged, lambda _: size), call.inputs[0])


@layer_rule(*sorted(select_classes("inert") - {"Identity", "StopGradient"}))
def in_training_alone(call: Call) -> Value:
    """Pass values on: inference leaves them as they are."""
    return call.passed(call.inputs[0], call.itself)


@layer_rule("Identity")
def identity(call: Call) -> Value:
    """Pass values on."""
    return call.inputs[0]
