"""Activations, of layers and alone: fused with what comes before, prescribed, or of a range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.quantization.call import Call
from compress.quantization.rules._base import KeptInFloats, layer_rule, operation_rule
from compress.quantization.values import Value

UNIT = (0.0, 255 / 256)
"""Range of a softmax or sigmoid in LiteRT: steps of 1/256 from 0 on."""
SYMMETRIC = (-1.0, 127 / 128)
"""Range of a tanh in LiteRT: steps of 1/128 on both sides of 0."""
TABLES = ("gelu",)

"""What LiteRT's integer kernels look up, or compute from a step's number alone."""
RECTIFIERS = ("relu", "relu6")


def activated(call: Call, value: Value, activation: Any) -> Value:
    """Returns what a layer's activation makes of a value; what cannot be computed so in floats.

    Args:
        call: Of the layer.
        value: What comes before its activation.
        activation: Of `keras.activations`; None: nothing is done.
    """
    import keras

    name = name_of(activation)
    if name == "linear":
        return value

    def layer(tensor: Any) -> Any:
        made = keras.layers.Activation(activation, name=call.building.name(f"{call.path}_{name}"))
        return made(tensor)

    if name in RECTIFIERS:
        return call.rectified(value, layer)
    if name in ("softmax", "sigmoid"):
        return call.prescribed(layer, value, *UNIT)
    if name == "tanh":
        return call.prescribed(layer, value, *SYMMETRIC)
    if name == "silu":
        return gated(call, value, keras.activations.sigmoid)
    if name == "leaky_relu":
        return call.leaky(value, 0.2)  # Keras's default slope of the function
    if name in TABLES:
        return call.summed(layer, value, fuses=False)
    return call.step_in_float(layer, value, f"activation {name} has no integer kernel")


def gated(call: Call, value: Value, gate: Callable[[Any], Any]) -> Value:
    """Returns a value times its own gate, a sigmoid."""
    import keras

    settled = call.on_grid(value)
    opened = call.prescribed(call.applied(gate, what="gate"), settled, *UNIT)
    return call.summed(call.applied(keras.ops.multiply, what="gated"), settled, opened, fuses=False)


def name_of(activation: Any) -> str:
    """Returns the name of an activation as Keras calls it."""
    import keras

    if activation is None:
        return "linear"
    found = getattr(activation, "__name__", type(activation).__name__)
    known = getattr(keras.activations, found, None)
    return str(found) if known is activation else f"'{found}'"


@layer_rule("Activation")
def activation(call: Call) -> Value:
    """The function that it was given."""
    if len(call.inputs) == 1:
        return activated(call, call.inputs[0], call.layer.activation)
    raise KeptInFloats("it is called with a mask")


@layer_rule("ReLU")
def rectifier(call: Call) -> Value | list[Value]:
    """Fused; a limit is where the range ends."""
    import keras

    layer = call.layer
    if layer.threshold:
        raise KeptInFloats("a ReLU with a threshold has no integer kernel")
    if layer.negative_slope and layer.max_value is not None:
        raise KeptInFloats("a leaky ReLU with a limit has no integer kernel")
    if layer.negative_slope:
        return call.leaky(call.inputs[0], float(layer.negative_slope))
    if layer.max_value in (None, 6.0):
        return call.rectified(call.inputs[0], call.itself)
    return call.rectified(
        call.inputs[0], call.applied(keras.activations.relu), float(layer.max_value)
    )


@layer_rule("LeakyReLU")
@operation_rule("LeakyRelu")
def leaky(call: Call) -> Value:
    """Two slopes."""
    return call.leaky(call.inputs[0], float(call.layer.negative_slope))


@layer_rule("ELU")
def exponential(call: Call) -> list[Value]:
    """In floats."""
    return call.in_float("the converter makes no integer operation of it")


@layer_rule("Softmax")
@operation_rule("Softmax")
def softmax(call: Call) -> Value | list[Value]:
    """Its steps are prescribed."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")
    if call.layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats("a softmax over another axis than the last has no integer kernel")
    return call.prescribed(call.itself, call.inputs[0], *UNIT)


@operation_rule("Relu", "Relu6")
def relu_operation(call: Call) -> Value:
    """Fused with what comes before."""
    return call.rectified(call.inputs[0], call.itself)


@operation_rule("Sigmoid")
def sigmoid_operation(call: Call) -> Value:
    """Its steps are prescribed."""
    return call.prescribed(call.itself, call.inputs[0], *UNIT)


@operation_rule("Tanh")
def tanh_operation(call: Call) -> Value:
    """Its steps are prescribed."""
    return call.prescribed(call.itself, call.inputs[0], *SYMMETRIC)


@operation_rule("Silu")
def silu_operation(call: Call) -> Value:
    """Its input times a sigmoid of it."""
    import keras

    return gated(call, call.inputs[0], keras.activations.sigmoid)


@operation_rule("Gelu")
def table_operation(call: Call) -> Value:
    """Looked up, step by step."""
    return call.summed(call.itself, call.inputs[0], fuses=False)
