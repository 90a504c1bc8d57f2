"""Values on their way through a model that is being rebuilt: floats, sums, or whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.quantization.kernels import Affine
    from compress.quantization.layers.ranges import FakeQuant


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
class Value:
    """A tensor of the fake-quantized model.

    Attributes:
        name: Of the call that made it.
        tensor: Symbolic; None as long as it is a sum.
        range: The layer that brought it to its grid; None: it is a float, or no real number.
        sum: What it is before it is brought to a grid.
        plain: The tensor before a range that the runtime prescribes; None: it has no such.
        loose: A float behind a product of activations (`products.py`).
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
