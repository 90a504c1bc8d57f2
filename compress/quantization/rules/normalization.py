"""Normalization: folded into the kernel before, or a scale and an offset by channel."""

from __future__ import annotations

from typing import Any

from compress.quantization.call import Call
from compress.quantization.kernels import Affine, normalization
from compress.quantization.rules._base import OPEN_SIZE, KeptInFloats, layer_rule
from compress.quantization.values import Value

Made = Value | list[Value]


@layer_rule("BatchNormalization")
def batch_normalization(call: Call) -> Made:
    """Folded; behind anything but a kernel a convolution by channels."""
    layer = call.layer
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")
    if layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats("it normalizes another axis than the last")
    return call.scaled(call.inputs[0], normalization(layer))


@layer_rule("LayerScale")
def branch_scale(call: Call) -> Made:
    """Folded; behind anything but a kernel a convolution by channels."""
    import tensorflow as tf

    layer = call.layer
    return call.scaled(
        call.inputs[0], Affine(layer, lambda: (tf.convert_to_tensor(layer.gamma.value), None))
    )


@layer_rule("Rescaling")
def rescaling(call: Call) -> Made:
    """A scale and an offset, a channel like the other unless they differ."""
    import tensorflow as tf

    layer, channels = call.layer, call.shape[-1]
    if channels is None:
        raise KeptInFloats(OPEN_SIZE)

    def terms() -> tuple[Any, Any]:
        return tuple(
            tf.broadcast_to(tf.constant(value, tf.float32), (channels,))
            for value in (layer.scale, layer.offset)
        )

    return call.scaled(call.inputs[0], Affine(layer, terms))


@layer_rule("Normalization")
def standardization(call: Call) -> Made:
    """By the mean and the variance of each channel, where they are the last axis's."""
    import tensorflow as tf

    layer, channels = call.layer, call.shape[-1]
    if channels is None:
        raise KeptInFloats(OPEN_SIZE)
    last = len(call.shape) - 1
    if layer.invert or any(axis not in (-1, last) for axis in _axes(layer)):
        raise KeptInFloats("it normalizes another axis than the last")

    def terms() -> tuple[Any, Any]:
        mean = tf.reshape(tf.convert_to_tensor(layer.mean), (-1,))
        deviation = tf.maximum(
            tf.sqrt(tf.reshape(tf.convert_to_tensor(layer.variance), (-1,))), 1e-7
        )
        return (
            tf.broadcast_to(1.0 / deviation, (channels,)),
            tf.broadcast_to(-mean / deviation, (channels,)),
        )

    return call.scaled(call.inputs[0], Affine(layer, terms))


def _axes(layer: Any) -> tuple[int, ...]:
    axis = layer.axis
    if axis is None:
        return ()
    return (axis,) if isinstance(axis, int) else tuple(axis)
