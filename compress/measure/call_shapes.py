"""One call with known shapes: what counting rules are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class CallShapes:
    """One call with known shapes.

    Attributes:
        operation: The layer or raw operation.
        args, kwargs: What it is called with; tensors are replaced by their shapes (`Sized`).
        inputs: Shapes of its tensor inputs, the batch axis of size 1 among them.
        outputs: Shapes of its outputs.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]

    @property
    def source(self) -> Shape:
        """The first input without its batch axis."""
        return self.inputs[0][1:]

    @property
    def target(self) -> Shape:
        """The first output without its batch axis."""
        return self.outputs[0][1:]

    def shape_of(self, place: int, name: str) -> Shape:
        """Returns the shape of an argument: a tensor, a variable or a constant."""
        value = self.args[place] if place < len(self.args) else self.kwargs.get(name)
        if isinstance(value, Sized):
            return value.shape
        return tuple(int(size) for size in np.shape(value)) if value is not None else ()


@dataclass(frozen=True)
class Sized:
    """Stands for a tensor among a call's arguments."""

    shape: Shape


class Uncountable(Exception):
    """Says why a call is not counted."""


Rule = Callable[[CallShapes], int]
