"""What all calls of a model that is being rebuilt share: names, ranges, and what stayed float."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from compress.quantization.layers.ranges import FakeQuant
from compress.quantization.layers.state import State

_NOT_IN_SCOPES = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class Placed:
    """How one call is computed.

    Attributes:
        layer: Its name, behind those of the models that it is nested in.
        kind: Class of the layer or operation.
        reason: Why it is computed in floats; "": it is computed in whole numbers.
    """

    layer: str
    kind: str
    reason: str = ""


@dataclass(eq=False)
class Building:
    """Shared by all calls.

    Attributes:
        state: Of the model's layers.
        learned: Ranges are trained.
        integer_products: Activations are multiplied by each other in whole numbers too.
        reduced_range: Weights have 7 bits; see `QuantizedKernel`.
        placed: One record a call, in their order.
        ranges: All layers of ranges, in the order in which they were made.
    """

    state: State
    learned: bool = False
    integer_products: bool = False
    reduced_range: bool = False
    placed: list[Placed] = field(default_factory=list)
    ranges: list[FakeQuant] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def name(self, wanted: str) -> str:
        """Return a layer name that no other layer has, and that TensorFlow takes as a scope.

        Names come from users' layers and functions: "<lambda>" or "größe" are no scopes.
        """
        found = wanted = _NOT_IN_SCOPES.sub("_", wanted).lstrip("_-") or "call"
        number = 0
        while found in self._names:
            number += 1
            found = f"{wanted}_{number}"
        self._names.add(found)
        return found

    def range(
        self, name: str, fixed: tuple[float, float] | None = None, **settings: Any
    ) -> FakeQuant:
        """Makes the layer of a range; see `FakeQuant` for the settings."""
        made = FakeQuant(
            self.state,
            fixed=fixed,
            learned=self.learned,
            name=self.name(f"{name}_range"),
            **settings,
        )
        self.ranges.append(made)
        return made

    def note(self, layer: str, operation: Any, reason: str = "") -> None:
        """Takes down how a call is computed."""
        self.placed.append(Placed(layer, type(operation).__name__, reason))
