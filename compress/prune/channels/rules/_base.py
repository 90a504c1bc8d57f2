"""The table of rules: which function speaks for which layer or raw operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from compress.model.layers import RuleTable
from compress.prune.channels.coupling.call import LayerCall
from compress.prune.channels.coupling.slots import Path, Shape, Slots

Rule = Callable[[LayerCall], "list[Slots] | Slots"]
TABLE: RuleTable[Any] = RuleTable()
"""`rule(call) -> Slots`: see `Rule`."""
layer_rule, operation_rule = TABLE.layer, TABLE.operation
rule_for, names, all_rules = TABLE.of, TABLE.names, TABLE.rules


def register_rule(layer_class: type, rule: Rule | None = None) -> Any:
    """Teaches channel pruning a custom layer; usable as a decorator.

    Args:
        layer_class: The layer's class; subclasses that keep its `call` are meant too.
        rule: Takes a `LayerCall` and returns the slots of the output (a list for several).

    Returns:
        The rule.
    """
    return TABLE.register(layer_class, rule)


def known(operation: Any) -> bool:
    """Tells whether there is a rule."""
    return rule_for(operation) is not None


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
