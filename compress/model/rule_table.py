"""Tables of rules: which function speaks for which layer or raw operation of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

Rule = TypeVar("Rule", bound=Callable[..., Any])
R = TypeVar("R", bound=Callable[..., Any])


class RuleTable(Generic[Rule]):
    """Rules by class: of Keras's layers, of raw operations (`keras.ops`), and of users' layers."""

    def __init__(self) -> None:
        self._layers: dict[str, Rule] = {}
        self._operations: dict[str, Rule] = {}
        self._custom: dict[type, Rule] = {}

    def layer(self, *names: str) -> Callable[[R], R]:
        """Registers a rule for Keras's own layers of these class names."""
        return self._registering(self._layers, names)

    def operation(self, *names: str) -> Callable[[R], R]:
        """Registers a rule for raw operations of these class names."""
        return self._registering(self._operations, names)

    def register(self, layer_class: type, rule: Rule | None = None) -> Any:
        """Registers a rule for a layer of the user's; usable as a decorator.

        Args:
            layer_class: The layer's class; subclasses that keep its `call` are meant too.
            rule: Default: returns a decorator.

        Returns:
            The rule.
        """
        if rule is None:
            return lambda function: self.register(layer_class, function)
        self._custom[layer_class] = rule
        return rule

    def of(self, operation: Any) -> Rule | None:
        """Returns the rule that speaks for an operation; None: nobody knows it.

        A subclass of a known layer is known too as long as it does not change `call`.
        """
        import keras

        kind = type(operation)
        for parent in kind.__mro__:
            rule = self._custom.get(parent)
            if rule is None and parent.__module__.startswith("keras."):
                layer = issubclass(parent, keras.layers.Layer)
                rule = (self._layers if layer else self._operations).get(parent.__name__)
            if rule is not None:
                own = getattr(kind, "call", None) is getattr(parent, "call", None)
                return rule if own else None
        return None

    def names(self) -> tuple[str, ...]:
        """Returns all names with a rule: "Conv2D", "ops.Add"."""
        return (*sorted(self._layers), *(f"ops.{name}" for name in sorted(self._operations)))

    def rules(self) -> tuple[Rule, ...]:
        """Returns every rule for a class of Keras once."""
        return tuple(dict.fromkeys([*self._layers.values(), *self._operations.values()]))

    @staticmethod
    def _registering(table: dict[str, Any], names: tuple[str, ...]) -> Callable[[R], R]:
        def register(rule: R) -> R:
            table.update(dict.fromkeys(names, rule))
            return rule

        return register
