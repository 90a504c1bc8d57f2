"""Layers and operations that are nothing but an activation."""

from __future__ import annotations

from compress.quantization.call import Call
from compress.quantization.rules._activation import SYMMETRIC, UNIT, activated, gated
from compress.quantization.rules._base import KeptInFloats, layer_rule, operation_rule
from compress.quantization.values import Value


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
def leaky(call: Call) -> Value:
    """Two slopes."""
    return call.leaky(call.inputs[0], float(call.layer.negative_slope))


@layer_rule("ELU")
def exponential(call: Call) -> list[Value]:
    """In floats."""
    return call.in_float("the converter makes no integer operation of it")


@layer_rule("Softmax")
def softmax(call: Call) -> Value | list[Value]:
    """Its steps are prescribed."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")
    last = len(call.shape) - 1
    if call.layer.axis not in (-1, last):
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


@operation_rule("Softmax")
def softmax_operation(call: Call) -> Value | list[Value]:
    """Its steps are prescribed."""
    if call.layer.axis not in (-1, len(call.shape) - 1):
        raise KeptInFloats("a softmax over another axis than the last has no integer kernel")
    return call.prescribed(call.itself, call.inputs[0], *UNIT)


@operation_rule("Silu")
def silu_operation(call: Call) -> Value:
    """Its input times a sigmoid of it."""
    import keras

    return gated(call, call.inputs[0], keras.activations.sigmoid)


@operation_rule("LeakyRelu")
def leaky_operation(call: Call) -> Value:
    """Two slopes."""
    return call.leaky(call.inputs[0], float(call.layer.negative_slope))


@operation_rule("Gelu")
def table_operation(call: Call) -> Value:
    """Looked up, step by step."""
    return call.summed(call.itself, call.inputs[0], fuses=False)
