"""Pooling: the largest stays on its grid, means are rounded anew."""

from __future__ import annotations

from compress.quantization.call import Call
from compress.quantization.rules._base import CHANNELS_FIRST, KeptInFloats, layer_rule
from compress.quantization.values import Value

Made = Value | list[Value]


@layer_rule("MaxPooling1D", "MaxPooling2D")
def largest(call: Call) -> Made:
    """On the same grid."""
    if _first(call):
        raise KeptInFloats(CHANNELS_FIRST)
    return call.same(call.itself, call.inputs[0])


@layer_rule("AveragePooling1D", "AveragePooling2D")
def mean(call: Call) -> Made:
    """Rounded to the same grid."""
    if _first(call):
        raise KeptInFloats(CHANNELS_FIRST)
    return call.same(call.itself, call.inputs[0], rounds=True, away=True)


@layer_rule("GlobalAveragePooling1D", "GlobalAveragePooling2D")
def whole_mean(call: Call) -> Made:
    """With a range of its own."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")
    return call.summed(call.itself, call.inputs[0], fuses=False)


@layer_rule("GlobalMaxPooling1D", "GlobalMaxPooling2D")
def whole_largest(call: Call) -> Made:
    """On the same grid."""
    return call.same(call.itself, call.inputs[0])


def _first(call: Call) -> bool:
    return bool(call.layer.data_format != "channels_last")
