"""Sums, products, and scales by channel: of layers and of raw operations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from compress.model.ports import BYTES
from compress.quantization.call import FASTER, Call, Value
from compress.quantization.kernels import Affine, tensor_of
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_mask,
    refuse_whole_numbers,
)

OTHER_AXIS = "it normalizes another axis than the last"


@layer_rule("Add", "Multiply")
def chained(call: Call) -> Value:
    """Combine two values at a time, each time with a new range; fuse a ReLU behind the last."""
    refuse_whole_numbers(call)
    adds = isinstance(call.layer, keras.layers.Add)
    operation = keras.layers.Add if adds else keras.layers.Multiply
    made, *rest = call.inputs
    for value in rest:
        layer = operation(name=call.building.name(call.path))
        made = call.summed(lambda *tensors, layer=layer: layer(list(tensors)), made, value)
    return made


@layer_rule("Subtract")
@operation_rule("Add", "Subtract", "Multiply")
def between_tensors(call: Call) -> Value:
    """Combine two values, or a value and a constant, with a range of its own."""
    refuse_whole_numbers(call)
    if len(call.inputs) == 2:
        return call.summed(call.itself, *call.inputs)
    return with_constant(call)


def with_constant(call: Call) -> Value:
    """Combine a tensor with a number or an array of numbers, no larger than itself."""
    operands = list(call.node.args[:2])
    place = next(
        (at for at, item in enumerate(operands) if not isinstance(item, keras.KerasTensor)), None
    )
    if len(operands) != 2 or place is None:
        raise KeptInFloats("its operands are not told apart")
    try:
        number = np.asarray(operands[place], np.float32)
    except (TypeError, ValueError):
        raise KeptInFloats("one operand is no constant") from None
    sizes = call.shape_of(0)[1:]
    shape = (1, *(size for size in sizes if size is not None))
    if None in sizes or np.broadcast_shapes(shape, number.shape) != shape:
        raise KeptInFloats("its constant is larger than its tensor")
    name = type(call.layer).__name__
    if name in ("Divide", "TrueDivide"):
        if place == 0 or not number.all():
            raise KeptInFloats("a quotient by a tensor, or by 0, has no integer kernel")
        name, number = "Multiply", np.float32(1.0) / number
    if number.size == 1 and name == "Multiply":
        scale = np.full(shape[-1], float(number.reshape(())), np.float32)
        return call.scaled(call.inputs[0], Affine(None, lambda: (tf.constant(scale), None)))
    combine = {"Add": tf.add, "Subtract": tf.subtract, "Multiply": tf.multiply}[name]

    def combined(x: Any, held: Any) -> Any:
        return combine(held, x) if place == 0 else combine(x, held)

    return call.with_constant(combined, call.inputs[0], lambda: tf.constant(number))


@operation_rule("Divide", "TrueDivide")
def quotient(call: Call) -> Value:
    """Divide by a constant: multiply by its reciprocal."""
    if len(call.inputs) > 1:
        raise KeptInFloats("a quotient of two tensors has no integer kernel")
    return with_constant(call)


@operation_rule("Cast")
def cast(call: Call) -> Value:
    """Keep bytes, which lie on a grid; other integers have no known size."""
    value, made = call.inputs[0], str(call.node.outputs[0].dtype)
    if made != "float32" or str(value.tensor.dtype if value.whole else made) not in (*BYTES, made):
        raise KeptInFloats("what it makes floats of may be of any size")
    return call.on_grid(value) if value.whole else value


@operation_rule("Matmul")
def product(call: Call) -> Value:
    """Multiply two activations; in integers with a range of their own."""
    if len(call.inputs) != 2 or any(value.whole for value in call.inputs):
        raise KeptInFloats("one operand is a constant")
    if not call.building.integer_products:
        raise KeptInFloats(FASTER)
    return call.summed(call.itself, *call.inputs, fuses=False)


@layer_rule("GlobalAveragePooling1D", "GlobalAveragePooling2D")
@operation_rule("Mean")
def mean(call: Call) -> Value:
    """Average, with a range of its own."""
    refuse_mask(call)
    return call.summed(call.itself, call.inputs[0], fuses=False)


@layer_rule("BatchNormalization")
def batch_normalization(call: Call) -> Value:
    """Normalize by moving statistics: folded; else as a convolution by channels."""
    layer = call.layer
    refuse_mask(call)
    if layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats(OTHER_AXIS)

    def terms() -> tuple[Any, Any]:
        scale = tf.math.rsqrt(tensor_of(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale *= tensor_of(layer.gamma)
        offset = -tensor_of(layer.moving_mean) * scale
        return scale, offset + tensor_of(layer.beta) if layer.center else offset

    return call.scaled(call.inputs[0], Affine(layer, terms))


@layer_rule("LayerScale")
def branch_scale(call: Call) -> Value:
    """Scale by channel: folded; else as a convolution by channels."""
    layer = call.layer
    return call.scaled(call.inputs[0], Affine(layer, lambda: (tensor_of(layer.gamma), None)))


@layer_rule("Rescaling")
def rescaling(call: Call) -> Value:
    """Scale and shift, all channels alike unless they differ."""
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
def standardization(call: Call) -> Value:
    """Normalize by the mean and variance of each channel, if these are the last axis."""
    layer, channels = call.layer, call.shape[-1]
    if channels is None:
        raise KeptInFloats(OPEN_SIZE)
    if layer.invert or not {-1, len(call.shape) - 1}.issuperset(layer.axis):
        raise KeptInFloats(OTHER_AXIS)

    def terms() -> tuple[Any, Any]:
        mean, variance = (
            tf.reshape(tf.convert_to_tensor(part), (-1,)) for part in (layer.mean, layer.variance)
        )
        deviation = tf.maximum(tf.sqrt(variance), 1e-7)
        return tuple(tf.broadcast_to(part / deviation, (channels,)) for part in (1.0, -mean))

    return call.scaled(call.inputs[0], Affine(layer, terms))


@layer_rule("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")
def by_example(call: Call) -> list[Value]:
    """Keep a normalization by an example's own statistics in floats."""
    return call.in_float("it normalizes by each example's own statistics, in many float operations")


@layer_rule("ELU", "Maximum", "Minimum", "Average", "Dot")
def in_floats(call: Call) -> list[Value]:
    """Keep a layer without an integer kernel in floats."""
    return call.in_float("the converter makes no integer operation of it")
