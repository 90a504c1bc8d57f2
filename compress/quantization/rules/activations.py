"""Rules for activations, of layers and raw operations, and for attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from compress.quantization.call import Call
from compress.quantization.rules._base import (
    KeptInFloats,
    layer_rule,
    operation_rule,
    refuse_mask,
)
from compress.quantization.values import Value

UNIT = (0.0, 255 / 256)
"""Range of a softmax or sigmoid in LiteRT: steps of 1/256 from 0."""
PRESCRIBED = {"sigmoid": UNIT, "softmax": UNIT, "tanh": (-1.0, 127 / 128)}
"""Prescribed ranges in LiteRT; that of a tanh has steps of 1/128 on both sides of 0."""


def apply_activation(call: Call, value: Value, activation: Any) -> Value:
    """Apply a layer's activation to a value, in float if it has no integer kernel.

    Args:
        call: Call of the layer.
        value: Input of the activation.
        activation: Function of `keras.activations`; None: linear.
    """
    name = get_activation_name(activation)
    if name == "linear":
        return value

    def apply_layer(tensor: Any) -> Any:
        activation_layer = keras.layers.Activation(
            activation, name=call.builder.reserve_name(f"{call.path}_{name}")
        )
        return activation_layer(tensor)

    return _apply_by_name(call, value, name, apply_layer)


def get_activation_name(activation: Any) -> str:
    """Return the Keras name of an activation; names of other functions are in quotes.

    Args:
        activation: Function, or None for a linear output.
    """
    if activation is None:
        return "linear"
    function_name = getattr(activation, "__name__", type(activation).__name__)
    keras_function = getattr(keras.activations, function_name, None)
    return str(function_name) if keras_function is activation else f"'{function_name}'"


def _apply_by_name(call: Call, value: Value, name: str, function: Callable[[Any], Any]) -> Value:
    """Apply the activation with a given name to a value.

    Args:
        call: Call of the activation, or of the layer that it belongs to.
        value: Input of the activation.
        name: Keras name of the activation.
        function: The activation, a function of a symbolic tensor.
    """
    if name in ("relu", "relu6"):
        return call.rectified(value, function)
    if name in PRESCRIBED:
        return call.apply_with_fixed_range(function, value, *PRESCRIBED[name])
    if name == "silu":  # product of the value and its sigmoid
        quantized = call.to_grid(value)
        gate = call.wrap_function(keras.activations.sigmoid, suffix="gate")
        gate_value = call.apply_with_fixed_range(gate, quantized, *UNIT)
        gated = call.wrap_function(keras.ops.multiply, suffix="gated")
        return call.apply_with_range(gated, quantized, gate_value, fuses=False)
    if name == "leaky_relu":
        return call.apply_leaky_relu(value, 0.2)  # default slope of the Keras function
    if name == "gelu":  # LiteRT uses a lookup table
        return call.apply_with_range(function, value, fuses=False)
    return call.apply_in_float(function, value, f"activation {name} has no integer kernel")


@layer_rule("Activation")
def quantize_activation(call: Call) -> Value:
    """Quantize an activation layer."""
    refuse_mask(call)
    return apply_activation(call, call.inputs[0], call.layer.activation)


@operation_rule("Relu", "Relu6", "Sigmoid", "Tanh", "Silu", "Gelu")
def quantize_activation_operation(call: Call) -> Value:
    """Quantize a raw activation operation, selected by its class name."""
    return _apply_by_name(call, call.inputs[0], type(call.layer).__name__.lower(), call.itself)


@layer_rule("ReLU")
def quantize_relu(call: Call) -> Value | list[Value]:
    """Fuse a ReLU with the preceding operation; its maximum becomes the end of the range."""
    layer, value = call.layer, call.inputs[0]
    if layer.threshold:
        raise KeptInFloats("a ReLU with a threshold has no integer kernel")
    if layer.negative_slope and layer.max_value is not None:
        raise KeptInFloats("a leaky ReLU with a limit has no integer kernel")
    if layer.negative_slope:
        return call.apply_leaky_relu(value, float(layer.negative_slope))
    if layer.max_value in (None, 6.0):
        return call.rectified(value, call.itself)
    return call.rectified(value, call.wrap_function(keras.activations.relu), float(layer.max_value))


@layer_rule("LeakyReLU")
@operation_rule("LeakyRelu")
def quantize_leaky_relu(call: Call) -> Value:
    """Quantize a leaky ReLU, with integer slopes."""
    return call.apply_leaky_relu(call.inputs[0], float(call.layer.negative_slope))


@layer_rule("Softmax")
@operation_rule("Softmax")
def quantize_softmax(call: Call) -> Value | list[Value]:
    """Quantize a softmax, whose range is prescribed."""
    refuse_mask(call)
    if call.layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats("a softmax over another axis than the last has no integer kernel")
    return call.apply_with_fixed_range(call.itself, call.inputs[0], *UNIT)
