"""Layers that merge several tensors."""

from __future__ import annotations

from compress.quantization.call import Call
from compress.quantization.rules._base import KeptInFloats, layer_rule
from compress.quantization.values import Value

Made = Value | list[Value]
FLOATS = "it merges what is no real number"


@layer_rule("Add", "Multiply")
def chained(call: Call) -> Made:
    """Two at a time, each time with a range of its own; a ReLU behind the last is fused."""
    import keras

    if any(value.whole for value in call.inputs):
        raise KeptInFloats(FLOATS)
    operation = {"Add": keras.layers.Add, "Multiply": keras.layers.Multiply}[
        type(call.layer).__name__
    ]
    made, *rest = call.inputs
    for value in rest:
        layer = operation(name=call.building.name(call.path))
        made = call.summed(lambda *tensors, layer=layer: layer(list(tensors)), made, value)
    return made


@layer_rule("Subtract")
def subtracted(call: Call) -> Made:
    """With a range of its own."""
    if any(value.whole for value in call.inputs):
        raise KeptInFloats(FLOATS)
    return call.summed(call.itself, *call.inputs)


@layer_rule("Maximum", "Minimum", "Average", "Dot")
def in_floats(call: Call) -> list[Value]:
    """What the converter has no integer kernel for."""
    return call.in_float("the converter makes no integer operation of it")


@layer_rule("Concatenate")
def concatenated(call: Call) -> Made:
    """On one grid."""
    if any(value.whole for value in call.inputs):
        raise KeptInFloats(FLOATS)
    return call.same(call.itself, *call.inputs)
