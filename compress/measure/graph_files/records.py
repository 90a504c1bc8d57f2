"""Records of graph files (LiteRT, SavedModel) and of their operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.summary import DisplayableResult, Summary
from compress.measure import formatting
from compress.measure.layer_costs import Analysis, count_bytes
from compress.measure.rules import Shape
from compress.model.file_formats import ForeignModel


@dataclass(eq=False)
class Tensor:
    """One tensor of a graph.

    Attributes:
        name: Name in the file.
        shape: Shape with the batch axis, None for an unknown size; None if even the rank is
            unknown.
        dtype: NumPy dtype name, or "int4", "bfloat16", "string", "resource", "variant".
        values: Function that returns the values of a constant; None for inputs and computed
            tensors.
        is_quantized: Whether its integers represent real numbers.
        zero_point: Integer that represents 0.
        scalar: Value of a scalar that is known without running the graph.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    values: Callable[[], npt.NDArray[Any]] | None = None
    is_quantized: bool = False
    zero_point: int = 0
    scalar: float | None = None

    @property
    def known_shape(self) -> Shape | None:
        """Shape, or None if a size is unknown."""
        if self.shape is None:
            return None
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def is_weight(self) -> bool:
        """Whether the tensor is a constant of real numbers with at least one axis.

        Scalars are settings (an epsilon, a scale), and integers are sizes and indices.
        """
        is_real = self.is_quantized or "float" in self.dtype
        return self.values is not None and is_real and bool(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements; 0 if the shape is unknown."""
        return math.prod(self.known_shape) if self.known_shape is not None else 0

    @property
    def nonzero(self) -> int:
        """Number of non-zero elements of a constant."""
        return 0 if self.values is None else int(np.count_nonzero(self.values() != self.zero_point))

    @property
    def size_bytes(self) -> int | None:
        """Size in bytes, or None if unknown."""
        if self.known_shape is None or self.dtype in ("string", "resource", "variant"):
            return None
        return count_bytes(self.known_shape, self.dtype)


@dataclass(eq=False)
class Operator:
    """One operation of a graph.

    Attributes:
        kind: Operation name of the file format: "CONV_2D", "Conv2D".
        name: Name with its scope in the model.
        inputs: Input tensors; None for a missing optional input.
        outputs: Output tensors.
        options: Attributes of the operation.
        condition: Condition graph of a loop.
        bodies: Body of a loop, alternatives of a branch, or function of a call.
    """

    kind: str
    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    condition: Graph | None = None
    bodies: tuple[Graph, ...] = ()

    @property
    def present_inputs(self) -> list[Tensor]:
        """Inputs without the missing optional ones."""
        return [tensor for tensor in self.inputs if tensor is not None]


@dataclass(eq=False)
class Graph:
    """Operators in an executable order.

    Attributes:
        inputs: Input tensors.
        outputs: Output tensors.
        operators: Operators in topological order.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]

    def find_producers(self) -> dict[int, Operator]:
        """Return the operator that creates each tensor, by the tensor's id."""
        return {id(tensor): item for item in self.operators for tensor in item.outputs}


@dataclass(frozen=True)
class Port:
    """An input or output of a graph file.

    Attributes:
        name: Name by which callers set or read it.
        shape: Shape with the batch axis, None for an open size; None if the rank is open.
        dtype: NumPy dtype name, or "string".
        scale, zero_point: Quantization: real = scale * (integer - zero_point). Scale 0: not
            quantized.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Shape of one example, without the batch axis."""
        return () if self.shape is None else self.shape[1:]


def format_shape(port: Port) -> str:
    """Return "1 x ? x 3", or "any" if the rank is open."""
    if port.shape is None:
        return "any"
    return " x ".join("?" if size is None else str(size) for size in port.shape) or "a scalar"


@dataclass(frozen=True, repr=False)
class GraphFile(DisplayableResult):
    """A model in another format than Keras: it can be measured, but not pruned.

    Attributes:
        path: The file, or the folder of a SavedModel.
        file_kind: File format and its limitations.
        signature: Signature that was read; empty if signatures have no names.
        signatures: Names of all signatures.
        inputs, outputs: Inputs and outputs of the signature.
        size_bytes: Size of the file, or of all files in the folder.
        costs: Costs of the graph; `Analysis.layers` has one entry per operator.
    """

    path: Path
    file_kind: ForeignModel
    signature: str
    signatures: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    size_bytes: int
    costs: Analysis

    @property
    def name(self) -> str:
        """File name without suffix, or the folder name."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def fixed_batch_size(self) -> int | None:
        """Batch size that the file fixes and is counted at; None if it is 1 or open."""
        sizes = {port.shape[0] for port in self.inputs if port.shape}
        size = sizes.pop() if len(sizes) == 1 else None
        return None if size == 1 else size

    def build_summary(self) -> Summary:
        """Return a summary for one screen: totals, costliest operators, file format."""
        cost_summary = self.costs.build_summary()
        lines = [f"takes {_format_ports(self.inputs)}", f"gives {_format_ports(self.outputs)}"]
        if self.fixed_batch_size:
            lines.append(f"counted at batch {self.fixed_batch_size}, which the file fixes")
        if len(self.signatures) > 1:
            name = self.signature or self.signatures[0]
            lines.append(f"signature '{name}' of {', '.join(self.signatures)}")
        return Summary(
            f"{self.path.name}, {self.file_kind.description}, "
            f"{formatting.format_size(self.size_bytes)}: {cost_summary.title}",
            (*lines, *cost_summary.lines),
            ("Operator", *cost_summary.headers[1:]),
            cost_summary.rows,
            (*cost_summary.notes, self.file_kind.limitation),
            "operators",
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything except the costs."""
        return {
            "file": str(self.path),
            "kind": self.file_kind.kind,
            "size_bytes": self.size_bytes,
            "signature": self.signature,
            "signatures": list(self.signatures),
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "prunable": False,
            "verdict": self.file_kind.limitation,
        }


def _format_ports(ports: tuple[Port, ...]) -> str:
    """Return "x 1 x 28 float32; y 1 x 2 int8 (scale 0.0039, zero point -128)"."""
    return "; ".join(
        f"{port.name} {format_shape(port)} {port.dtype}"
        + (f" (scale {port.scale:.6g}, zero point {port.zero_point})" if port.scale else "")
        for port in ports
    )
