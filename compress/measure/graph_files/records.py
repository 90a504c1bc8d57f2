"""A graph of operations as plain records, whatever file it comes from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.measure.call_shapes import Shape

_BITS = {"bool": 8, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}
_UNSIZED = ("string", "resource", "variant")


@dataclass(eq=False)
class Tensor:
    """One tensor of a graph.

    Attributes:
        name: As the file calls it.
        shape: The batch axis included; None: not even its rank is known.
        dtype: NumPy's name of the type, or "int4", "bfloat16", "string", "resource", "variant".
        values: Makes the values of a constant; None: it is computed, or given.
        quantized: Whether its whole numbers stand for real ones.
        zero: The whole number that stands for 0.
        number: The value of a scalar that is known without running anything.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    values: Callable[[], npt.NDArray[Any]] | None = None
    quantized: bool = False
    zero: int = 0
    number: float | None = None

    @property
    def known(self) -> Shape | None:
        """Its shape, or None where a size is unknown."""
        if self.shape is None:
            return None
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def is_weight(self) -> bool:
        """Whether it is a constant of real numbers with an axis at least.

        Scalars are settings (an epsilon, a scale), whole numbers are sizes and places.
        """
        real = self.quantized or "float" in self.dtype
        return self.values is not None and real and bool(self.shape)

    @property
    def elements(self) -> int:
        """How many numbers it holds; 0 where its shape is unknown."""
        return math.prod(self.known) if self.known is not None else 0

    @property
    def nonzero(self) -> int:
        """How many numbers of a constant are not zero."""
        return 0 if self.values is None else int(np.count_nonzero(self.values() != self.zero))

    @property
    def bytes(self) -> int | None:
        """Its size in bytes, or None."""
        if self.known is None or self.dtype in _UNSIZED:
            return None
        digits = "".join(filter(str.isdigit, self.dtype))
        bits = _BITS.get(self.dtype) or (int(digits) if digits else 32)
        return math.ceil(self.elements * bits / 8)


@dataclass(eq=False)
class Operator:
    """One operation of a graph.

    Attributes:
        kind: As the file's format calls it: "CONV_2D", "Conv2D".
        name: Where it stands in the model.
        inputs: None where an optional one is missing.
        outputs: What it makes.
        options: What it is told beside tensors.
        condition: Of a loop: the graph that says whether another round follows.
        bodies: Of a loop its body, of a branch its alternatives, of a call what is called.
    """

    kind: str
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: dict[str, Any] = field(default_factory=dict)
    condition: Graph | None = None
    bodies: tuple[Graph, ...] = ()

    @property
    def given(self) -> list[Tensor]:
        """The inputs that are there."""
        return [tensor for tensor in self.inputs if tensor is not None]


@dataclass(eq=False)
class Graph:
    """Operations in an order in which they can be run."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]

    def makers(self) -> dict[int, Operator]:
        """Returns the operator that makes each tensor, by the tensor's id."""
        return {id(tensor): item for item in self.operators for tensor in item.outputs}
