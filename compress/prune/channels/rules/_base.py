"""The table of rules: which function speaks for which layer or raw operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Path, Shape, Slots

Rule = Callable[[LayerCall], "list[Slots] | Slots"]
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


def register_rule(layer_class: type, rule: Rule | None = None) -> Any:
    """Teaches channel pruning a custom layer; usable as a decorator.

    Args:
        layer_class: The layer's class; subclasses that keep its `call` are meant too.
        rule: Takes a `LayerCall` and returns the slots of the output (a list for several).

    Returns:
        The rule.
    """
    if rule is None:
        return lambda function: register_rule(layer_class, function)
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


def known(operation: Any) -> bool:
    """Tells whether there is a rule."""
    return rule_for(operation) is not None


def names() -> tuple[str, ...]:
    """Returns all names with a rule: "Conv2D", "ops.Add"."""
    return (*sorted(_LAYERS), *(f"ops.{name}" for name in sorted(_OPERATIONS)))


def all_rules() -> tuple[Rule, ...]:
    """Returns every rule once."""
    return tuple(dict.fromkeys([*_LAYERS.values(), *_OPERATIONS.values()]))


def apply(call: LayerCall) -> list[Slots]:
    """Runs the rule of a call; a call without one is opaque."""
    rule = rule_for(call.layer)
    if rule is None:
        return call.unknown("no rule for this class")
    result = rule(call)
    return result if isinstance(result, list) else [result]


def inner(
    call: LayerCall,
    layer: Any,
    inputs: Sequence[Slots],
    shapes: Sequence[Shape],
    path: Path,
    positions: int = 1,
    **kwargs: Any,
) -> list[Slots]:
    """Applies the rule of a layer inside another; see `LayerCall.inside` for the arguments."""
    return apply(call.inside(layer, inputs, shapes, path, positions, **kwargs))
