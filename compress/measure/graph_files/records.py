"""Records of graph files (LiteRT, SavedModel) and of their operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.summary import Readable, Summary
from compress.measure import formats
from compress.measure.layer_costs import Analysis
from compress.measure.rules import Shape
from compress.model.kinds import Foreign


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
        if self.known is None or self.dtype in ("string", "resource", "variant"):
            return None
        digits = "".join(filter(str.isdigit, self.dtype))
        named = {"bool": 8, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}
        bits = named.get(self.dtype) or (int(digits) if digits else 32)
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
    options: Mapping[str, Any] = field(default_factory=dict)
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
        """Return the operator that makes each tensor, by the tensor's id."""
        return {id(tensor): item for item in self.operators for tensor in item.outputs}


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: As whoever feeds the file calls it.
        shape: The batch axis included; None where a size is open; None: any rank.
        dtype: NumPy's name of the type, or "string".
        scale, zero_point: Of quantized numbers: real = scale * (integer - zero_point); 0: it
            is none.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """The shape of one example, without the batch axis."""
        return () if self.shape is None else self.shape[1:]


def shape_text(port: Port) -> str:
    """Return "1 x ? x 3", or "any" where the rank is open."""
    if port.shape is None:
        return "any"
    return " x ".join("?" if size is None else str(size) for size in port.shape) or "a scalar"


@dataclass(frozen=True, repr=False)
class GraphFile(Readable):
    """A model that is no Keras model: it can be measured, and not pruned.

    Attributes:
        path: The file, or a SavedModel's folder.
        what: What it is.
        signature: Which of its functions was looked at; empty: it has no names for them.
        signatures: All of them.
        inputs, outputs: What it takes and gives.
        size_bytes: Of the file, or of all files in the folder.
        costs: Counted from its graph, a row an operator: `Analysis.layers`.
    """

    path: Path
    what: Foreign
    signature: str
    signatures: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    size_bytes: int
    costs: Analysis

    @property
    def name(self) -> str:
        """The file's name without its suffix; a folder's whole name."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def batch(self) -> int | None:
        """The batch that it fixes and is counted at, where that is not 1."""
        sizes = {port.shape[0] for port in self.inputs if port.shape}
        size = sizes.pop() if len(sizes) == 1 else None
        return None if size == 1 else size

    def screen(self) -> Summary:
        """Return the summary of one screen: totals, costliest operators, kind of file."""
        found = self.costs.screen()
        lines = [f"takes {_ports(self.inputs)}", f"gives {_ports(self.outputs)}"]
        if self.batch:
            lines.append(f"counted at batch {self.batch}, which the file fixes")
        if len(self.signatures) > 1:
            name = self.signature or self.signatures[0]
            lines.append(f"signature '{name}' of {', '.join(self.signatures)}")
        return Summary(
            f"{self.path.name}, {self.what.text}, {formats.size(self.size_bytes)}: {found.title}",
            (*lines, *found.lines),
            ("Operator", *found.heads[1:]),
            found.rows,
            (*found.notes, self.what.verdict),
            "operators",
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything but the costs."""
        return {
            "file": str(self.path),
            "kind": self.what.kind,
            "size_bytes": self.size_bytes,
            "signature": self.signature,
            "signatures": list(self.signatures),
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "prunable": False,
            "verdict": self.what.verdict,
        }


def _ports(ports: tuple[Port, ...]) -> str:
    """Return "x 1 x 28 float32; y 1 x 2 int8 (scale 0.0039, zero point -128)"."""
    return "; ".join(
        f"{port.name} {shape_text(port)} {port.dtype}"
        + (f" (scale {port.scale:.6g}, zero point {port.zero_point})" if port.scale else "")
        for port in ports
    )
