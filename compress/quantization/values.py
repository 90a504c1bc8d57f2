"""What a model that is being rebuilt is made of: its values, and what all its calls share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.quantization.ranges import FakeQuant, State

if TYPE_CHECKING:
    from compress.quantization.kernels import Affine

_NOT_IN_SCOPES = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(eq=False)
class Value:
    """A tensor of the fake-quantized model.

    Attributes:
        name: Of the call that made it.
        tensor: Symbolic; None as long as it is a sum.
        range: The layer that brought it to its grid; None: it is a float, or no real number.
        sum: What it is before it is brought to a grid.
        plain: The tensor before a range that the runtime prescribes; None: it has no such.
        loose: A float behind a product of activations (see `made_loose`).
        whole: Whole numbers or booleans, such as indices: never on a grid.
        real: Of whole numbers that some call reads as real ones: the same on a grid.
        users: How many calls read it, each of the model's outputs counted as one. What a call makes
            on its way it reads itself, once.
    """

    name: str
    tensor: Any = None
    range: FakeQuant | None = None
    sum: Sum | None = None
    plain: Any = None
    loose: bool = False
    whole: bool = False
    real: Value | None = None
    users: int = 1

    @property
    def grid(self) -> FakeQuant:
        """The range of a value that is on a grid."""
        assert self.range is not None
        return self.range

    @property
    def alone(self) -> bool:
        """Whether one call alone reads it, so that this one may be fused with it."""
        return self.users == 1


@dataclass(frozen=True, eq=False)
class Sum:
    """What integer arithmetic makes before it is brought to a grid: more may be fused with it.

    Attributes:
        make: Returns the symbolic tensor; called once.
        fuses: A ReLU behind it is part of it.
        folds: Takes a scale and an offset by channel and returns the sum with them in its kernel;
            None: it has none.
        fixed: Range that the runtime prescribes.
        cap: Where its range ends at most.
    """

    make: Callable[[], Any]
    fuses: bool = True
    folds: Callable[[Affine], Sum] | None = None
    fixed: tuple[float, float] | None = None
    cap: float | None = None


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
