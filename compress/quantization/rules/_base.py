"""Registry of rules: how each layer or raw operation is computed in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compress.model.layers import RuleTable

if TYPE_CHECKING:
    from compress.quantization.call import Call
    from compress.quantization.values import Value

Rule = Callable[["Call"], "Value | list[Value]"]
TABLE: RuleTable[Any] = RuleTable()
"""Rules `rule(call) -> Value`, or a list for several outputs; they may raise `KeptInFloats`."""
layer_rule, operation_rule = TABLE.register_layer, TABLE.register_operation
find_rule = TABLE.find_rule
OPEN_SIZE = "a size is open"


class KeptInFloats(Exception):
    """Refusal of integer arithmetic, with a reason; the unchanged call is computed in float."""


def register_quantization(layer_class: type, rule: Rule | None = None) -> Any:
    """Register the quantization rule of a custom layer; usable as a decorator.

    Args:
        layer_class: Class of the layer, including subclasses that inherit its `call`.
        rule: Function that takes a `compress.quantization.call.Call` and returns the output value;
            it may raise `KeptInFloats` with a reason. None: return a decorator.

    Returns:
        The rule, or the decorator.

    Example:
        >>> class Clipped(keras.layers.Layer):
        ...     def call(self, inputs):
        ...         return keras.ops.relu6(inputs)
        >>> @register_quantization(Clipped)
        ... def clipped(call):
        ...     return call.rectified(call.inputs[0], call.itself)
    """
    return TABLE.register(layer_class, rule)


def refuse_mask(call: Call) -> None:
    """Raise `KeptInFloats` for a call with a mask."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")


def refuse_channels_first(call: Call) -> None:
    """Raise `KeptInFloats` if channels are not the last axis."""
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        raise KeptInFloats("channels come first: integer kernels want them last")


def refuse_whole_numbers(call: Call) -> None:
    """Raise `KeptInFloats` if a call combines values with indices or booleans."""
    if any(value.is_integer for value in call.inputs):
        raise KeptInFloats("it merges what is no real number")
