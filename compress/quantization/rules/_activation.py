"""Activations: fused with what comes before, prescribed, or of a range of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.quantization.call import Call
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
