"""The table of rules: how each layer or raw operation is computed in whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from compress.quantization.call import Call
    from compress.quantization.values import Value

Rule = Callable[["Call"], "Value | list[Value]"]
R = TypeVar("R", bound=Rule)

_LAYERS: dict[str, Rule] = {}
_OPERATIONS: dict[str, Rule] = {}
_CUSTOM: dict[type, Rule] = {}


def layer_rule(*names: str) -> Callable[[R], R]:
    """Registers a rule for Keras's own layers of these class names."""

    def register(rule: R) -> R:
        _LAYERS.update(dict.fromkeys(names, rule))
        return rule

    return register


def operation_rule(*names: str) -> Callable[[R], R]:
    """Registers a rule for raw operations (`keras.ops`) of these class names."""

    def register(rule: R) -> R:
        _OPERATIONS.update(dict.fromkeys(names, rule))
        return rule

    return register


def register_quantization(layer_class: type, rule: Rule | None = None) -> Any:
    """Teaches quantization a custom layer; usable as a decorator.

    Args:
        layer_class: The layer's class; subclasses that keep its `call` are meant too.
        rule: Takes a `compress.quantization.call.Call` and returns the value of the output.

    Returns:
        The rule.
    """
    if rule is None:
        return lambda function: register_quantization(layer_class, function)
    _CUSTOM[layer_class] = rule
    return rule


def rule_for(operation: Any) -> Rule | None:
    """Returns the rule that speaks for an operation; None: nobody knows it.

    A subclass of a known layer is known too as long as it does not change `call`.
    """
    import keras

    kind = type(operation)
    for parent in kind.__mro__:
        rule = _CUSTOM.get(parent)
        if rule is None and parent.__module__.startswith("keras."):
            layer = issubclass(parent, keras.layers.Layer)
            rule = (_LAYERS if layer else _OPERATIONS).get(parent.__name__)
        if rule is not None:
            return rule if getattr(kind, "call", None) is getattr(parent, "call", None) else None
    return None


def names() -> tuple[str, ...]:
    """Returns all names with a rule: "Conv2D", "ops.Add"."""
    return (*sorted(_LAYERS), *(f"ops.{name}" for name in sorted(_OPERATIONS)))
