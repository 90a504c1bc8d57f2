"""Rules for sums, products and per-channel scales, of layers and raw operations."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from compress.model.ports import PIXEL_RANGES
from compress.quantization.call import FASTER, Call
from compress.quantization.kernels import Affine, to_tensor
from compress.quantization.rules._base import (
    OPEN_SIZE,
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_mask,
    refuse_whole_numbers,
)
from compress.quantization.values import Value

OTHER_AXIS = "it normalizes another axis than the last"


@layer_rule("Add", "Multiply")
def quantize_merge(call: Call) -> Value:
    """Combine the inputs pairwise, with a range each time; a ReLU can be fused with the last."""
    refuse_whole_numbers(call)
    adds = isinstance(call.layer, keras.layers.Add)
    operation = keras.layers.Add if adds else keras.layers.Multiply
    result, *rest = call.inputs
    for value in rest:
        layer = operation(name=call.builder.reserve_name(call.path))
        result = call.apply_with_range(
            lambda *tensors, layer=layer: layer(list(tensors)), result, value
        )
    return result


@layer_rule("Subtract")
@operation_rule("Add", "Subtract", "Multiply")
def quantize_binary(call: Call) -> Value:
    """Combine two values, or a value and a constant; the result has its own range."""
    refuse_whole_numbers(call)
    if len(call.inputs) == 2:
        return call.apply_with_range(call.itself, *call.inputs)
    return combine_with_constant(call)


def combine_with_constant(call: Call) -> Value:
    """Combine a tensor with a number or an array that broadcasts to its shape.

    Args:
        call: Call with one tensor and one constant.

    Raises:
        KeptInFloats: The constant is unknown or larger than the tensor, or the call divides by a
            tensor or by 0.
    """
    operands = list(call.node.args[:2])
    constant_index = next(
        (index for index, item in enumerate(operands) if not isinstance(item, keras.KerasTensor)),
        None,
    )
    if len(operands) != 2 or constant_index is None:
        raise KeptInFloats("its operands are not told apart")
    try:
        number = np.asarray(operands[constant_index], np.float32)
    except (TypeError, ValueError):
        raise KeptInFloats("one operand is no constant") from None
    sizes = call.get_input_shape(0)[1:]
    shape = (1, *(size for size in sizes if size is not None))
    if None in sizes or np.broadcast_shapes(shape, number.shape) != shape:
        raise KeptInFloats("its constant is larger than its tensor")
    name = type(call.layer).__name__
    if name in ("Divide", "TrueDivide"):
        if constant_index == 0 or not number.all():
            raise KeptInFloats("a quotient by a tensor, or by 0, has no integer kernel")
        name, number = "Multiply", np.float32(1.0) / number
    if number.size == 1 and name == "Multiply":
        scale = np.full(shape[-1], float(number.reshape(())), np.float32)
        return call.apply_affine(call.inputs[0], Affine(None, lambda: (tf.constant(scale), None)))
    combine = {"Add": tf.add, "Subtract": tf.subtract, "Multiply": tf.multiply}[name]

    def combine_operands(x: Any, constant: Any) -> Any:
        return combine(constant, x) if constant_index == 0 else combine(x, constant)

    return call.combine_with_constant(combine_operands, call.inputs[0], lambda: tf.constant(number))


@operation_rule("Divide", "TrueDivide")
def quantize_division(call: Call) -> Value:
    """Divide by a constant, as a multiplication by its reciprocal."""
    if len(call.inputs) > 1:
        raise KeptInFloats("a quotient of two tensors has no integer kernel")
    return combine_with_constant(call)


@operation_rule("Cast")
def quantize_cast(call: Call) -> Value:
    """Read bytes as values on a grid; other integers have no known range."""
    value, dtype = call.inputs[0], str(call.node.outputs[0].dtype)
    if dtype != "float32" or str(value.tensor.dtype if value.is_integer else dtype) not in (
        *PIXEL_RANGES,
        dtype,
    ):
        raise KeptInFloats("what it makes floats of may be of any size")
    return call.to_grid(value) if value.is_integer else value


@operation_rule("Matmul", "DotProductAttention")
def keep_product_in_float(call: Call) -> list[Value]:
    """Keep a product of activations in float."""
    return call.keep_in_float(FASTER)


@layer_rule("GlobalAveragePooling1D", "GlobalAveragePooling2D")
@operation_rule("Mean")
def quantize_mean(call: Call) -> Value:
    """Quantize a mean or a global average pooling, with its own range."""
    refuse_mask(call)
    return call.apply_with_range(call.itself, call.inputs[0], fuses=False)


@layer_rule("BatchNormalization")
def quantize_batch_normalization(call: Call) -> Value:
    """Fold a batch normalization (moving statistics), or make it a depthwise convolution."""
    layer = call.layer
    refuse_mask(call)
    if layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats(OTHER_AXIS)

    def compute_terms() -> tuple[Any, Any]:
        scale = tf.math.rsqrt(to_tensor(layer.moving_variance) + layer.epsilon)
        if layer.scale:
            scale *= to_tensor(layer.gamma)
        offset = -to_tensor(layer.moving_mean) * scale
        return scale, offset + to_tensor(layer.beta) if layer.center else offset

    return call.apply_affine(call.inputs[0], Affine(layer, compute_terms))


@layer_rule("LayerScale")
def quantize_layer_scale(call: Call) -> Value:
    """Fold a per-channel scale, or make it a depthwise convolution."""
    layer = call.layer
    return call.apply_affine(call.inputs[0], Affine(layer, lambda: (to_tensor(layer.gamma), None)))


@layer_rule("Rescaling")
def quantize_rescaling(call: Call) -> Value:
    """Quantize a rescaling, whose scale and offset may differ per channel."""
    layer, channels = call.layer, call.shape[-1]
    if channels is None:
        raise KeptInFloats(OPEN_SIZE)
    constants = [np.asarray(value, np.float32) for value in (layer.scale, layer.offset)]
    if any(math.prod(value.shape[:-1]) != 1 for value in constants):
        raise KeptInFloats(OTHER_AXIS)

    def compute_terms() -> tuple[Any, Any]:
        return tuple(
            tf.broadcast_to(tf.constant(value.reshape(-1)), (channels,)) for value in constants
        )

    return call.apply_affine(call.inputs[0], Affine(layer, compute_terms))


@layer_rule("Normalization")
def quantize_normalization(call: Call) -> Value:
    """Quantize a normalization by the mean and variance of each channel of the last axis."""
    layer, channels = call.layer, call.shape[-1]
    if channels is None:
        raise KeptInFloats(OPEN_SIZE)
    if layer.invert or not {-1, len(call.shape) - 1}.issuperset(layer.axis):
        raise KeptInFloats(OTHER_AXIS)

    def compute_terms() -> tuple[Any, Any]:
        mean, variance = (
            tf.reshape(tf.convert_to_tensor(part), (-1,)) for part in (layer.mean, layer.variance)
        )
        deviation = tf.maximum(tf.sqrt(variance), 1e-7)
        return tuple(tf.broadcast_to(part / deviation, (channels,)) for part in (1.0, -mean))

    return call.apply_affine(call.inputs[0], Affine(layer, compute_terms))


@layer_rule("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization")
def keep_normalization_in_float(call: Call) -> list[Value]:
    """Keep a normalization by per-example statistics in float."""
    return call.keep_in_float(
        "it normalizes by each example's own statistics, in many float operations"
    )


@layer_rule("ELU", "Maximum", "Minimum", "Average", "Dot")
def keep_in_float(call: Call) -> list[Value]:
    """Keep a layer without an integer kernel in float."""
    return call.keep_in_float("the converter makes no integer operation of it")
