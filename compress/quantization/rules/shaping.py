"""Layers that move or repeat values, or leave them as they are."""

from __future__ import annotations

from typing import Any

from compress.model.layers import select_classes
from compress.quantization.call import Call
from compress.quantization.rules._base import KeptInFloats, layer_rule, operation_rule
from compress.quantization.values import Value

Made = Value | list[Value]


@layer_rule(
    "Flatten", "Reshape", "Permute", "RepeatVector", "Cropping1D", "Cropping2D", "ZeroPadding1D",
    "ZeroPadding2D",
)  # fmt: skip
def moved(call: Call) -> Made:
    """On the same grid."""
    return call.same(call.itself, call.inputs[0])


@layer_rule("UpSampling1D", "UpSampling2D")
def repeated(call: Call) -> Made:
    """On the same grid; what is interpolated is rounded to it."""
    import tensorflow as tf

    layer, size = call.layer, call.shape
    kind = getattr(layer, "interpolation", "nearest")
    if kind not in ("nearest", "bilinear"):
        raise KeptInFloats(f"{kind} interpolation has no integer kernel")
    if getattr(layer, "data_format", "channels_last") != "channels_last" or None in size[1:]:
        raise KeptInFloats("channels come first, or a size is open")
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
    """Inference leaves values as they are."""
    return call.passed(call.inputs[0], call.itself)


@layer_rule("Identity")
def identity(call: Call) -> Value:
    """Nothing is done."""
    return call.passed(call.inputs[0])


@operation_rule(
    "ExpandDims", "Flip", "GetItem", "Reshape", "Squeeze", "Transpose", "Moveaxis", "Swapaxes",
)  # fmt: skip
def moved_operation(call: Call) -> Made:
    """On the same grid."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is told by a tensor what to move")

    return call.same(call.itself, call.inputs[0])


@operation_rule("Concatenate")
def joined_operation(call: Call) -> Made:
    """On one grid."""

    if any(value.whole for value in call.inputs):
        raise KeptInFloats("it joins what is no real number")
    return call.same(call.itself, *call.inputs)
