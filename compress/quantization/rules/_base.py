"""Table of rules: how each layer or raw operation is computed in integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from compress.model.layers import RuleTable

if TYPE_CHECKING:
    from compress.quantization.call import Call, Value

Rule = Callable[["Call"], "Value | list[Value]"]
TABLE: RuleTable[Any] = RuleTable()
"""`rule(call) -> Value`, of several outputs a list; raises `KeptInFloats` with a reason."""
layer_rule, operation_rule = TABLE.layer, TABLE.operation
rule_for, names = TABLE.of, TABLE.names
OPEN_SIZE = "a size is open"


class KeptInFloats(Exception):
    """Refusal of integer arithmetic with a reason; the call is made as it is, in floats."""


def register_quantization(layer_class: type, rule: Rule | None = None) -> Any:
    """Register the rule of a custom layer for quantization; usable as a decorator.

    Args:
        layer_class: The layer's class; subclasses that keep its `call` are meant too.
        rule: Takes a `compress.quantization.call.Call` and returns the value of the output; it may
            raise `KeptInFloats` with a reason.

    Returns:
        The rule.

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
    """Keep a call with a mask in floats."""
    if len(call.inputs) > 1:
        raise KeptInFloats("it is called with a mask")


def refuse_channels_first(call: Call) -> None:
    """Keep a call in floats if channels are not its last axis."""
    if getattr(call.layer, "data_format", "channels_last") != "channels_last":
        raise KeptInFloats("channels come first: integer kernels want them last")


def refuse_whole_numbers(call: Call) -> None:
    """Keep a call in floats if it combines values with indices or booleans."""
    if any(value.whole for value in call.inputs):
        raise KeptInFloats("it merges what is no real number")
