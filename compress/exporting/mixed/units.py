"""Which operations of a `.tflite` file are computed in one precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.exporting.scopes import UNNAMED, path_of, without_calls
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tflite import TFLiteReader
from compress.measure.graph_files.tflite_table import TFLITE
from compress.model.walk import named_layers

if TYPE_CHECKING:
    import keras

LAST = ("SOFTMAX", "LOGISTIC")
"""What stays in float32 as the last operation: probabilities in 256 steps would hide which layer
costs what, and it takes no time."""

IN_FLOATS = ("BATCH_MATMUL", "RSQRT", "SOFTMAX", "SQUARED_DIFFERENCE")
"""What is faster in floats, on CPUs several times (products of activations, what weighs them, and
each example's own statistics): where it begins, the rest of a unit is computed in floats."""


@dataclass(frozen=True)
class Unit:
    """A kernel's operation with those without weights that follow it, up to the next kernel.

    What passes is converted where the precision changes: so that is once a kernel at most.

    Attributes:
        name: The layer that holds the kernel; where the file does not tell, the operation.
        scopes: What its operations make, each with a semicolon behind: by these LiteRT Quantizer
            finds operations.
        kinds: Of its operations.
        macs: Multiply-accumulates that are counted; others count as none.
        weights: Numbers in its kernels.
        slow: Those of `scopes` that stay in floats where the unit computes in whole numbers.
        loops: Whether it is a loop or a branch: of one round what passes is fed to the next, so
            that it stays in floats.
    """

    name: str
    scopes: tuple[str, ...]
    kinds: tuple[str, ...]
    macs: int
    weights: int
    slow: frozenset[str] = frozenset()
    loops: bool = False

    @property
    def kind(self) -> str:
        """Of its first operation: the kernel's, where it has one."""
        return self.kinds[0]


def kernels_of(model: keras.Model) -> dict[str, bool]:
    """Returns the paths of a model's layers, and whether each holds weights of two axes or more."""
    return {
        path: any(len(weight.shape) > 1 for weight in layer.weights)
        for path, layer in named_layers(model)
    }


def file_graph(path: Path) -> Graph:
    """Returns the operations of a file whose sizes are known."""
    reader = TFLiteReader(path)
    signature = next(iter(reader.signatures), "")
    inputs, _ = reader.ports(signature)
    return reader.graph(signature, [port.sizes for port in inputs])


def units_of(graph: Graph, layers: Mapping[str, bool]) -> tuple[Unit, ...]:
    """Returns the units of a file, in the order in which they are computed.

    A loop with all that it runs is one. The activation of an output (`LAST`) is of none.

    Args:
        graph: Of a float32 file.
        layers: Paths of the model's layers, and whether they hold a kernel; see `kernels_of`.
    """
    ends = set(map(id, graph.outputs))
    owner: dict[int, int] = {}  # id of a tensor -> the unit that makes it
    found: list[list[Operator]] = []
    for operator in graph.operators:
        made = list(map(id, operator.outputs))
        if operator.kind in LAST and ends.intersection(made):
            continue
        behind = [owner[id(tensor)] for tensor in operator.given if id(tensor) in owner]
        place = max(behind, default=len(found))
        if not behind or kernel_of(operator) is not None or operator.bodies:
            place = len(found)
            found.append([])
        if not operator.bodies:  # what follows a loop may be whole numbers
            owner.update(dict.fromkeys(made, place))
        found[place].append(operator)
    return tuple(_unit(operators, layers) for operators in found)


def kernel_of(operator: Operator) -> Tensor | None:
    """Returns the constant of real numbers with two axes or more that an operation reads."""
    for tensor in operator.given:
        if tensor.is_weight and sum(size > 1 for size in tensor.known or ()) > 1:
            return tensor
    return None


def scope_of(operator: Operator) -> str:
    """Returns the names of what an operation makes, as LiteRT Quantizer joins them."""
    return "".join(f"{tensor.name};" for tensor in operator.outputs)


def _unit(operators: list[Operator], layers: Mapping[str, bool]) -> Unit:
    first = next((item for item in operators if kernel_of(item) is not None), operators[0])
    operators = [item for operator in operators for item in _all_of(operator)]
    kernels = [kernel for item in operators if (kernel := kernel_of(item)) is not None]
    return Unit(
        owner_of(first, layers) or first.name,
        tuple(map(scope_of, operators)),
        tuple(item.kind for item in operators),
        sum(TFLITE.macs(item)[0] or 0 for item in operators),
        sum(kernel.elements for kernel in kernels),
        frozenset(map(scope_of, _slow(operators))),
        bool(first.bodies),
    )


def _slow(operators: Sequence[Operator]) -> list[Operator]:
    """Returns the operations of a unit that stay in floats: `IN_FLOATS`, and what reads them."""
    seeds = {id(item) for item in operators if item.kind in IN_FLOATS}
    squared = {id(tensor) for item in operators if item.kind == "SQUARED_DIFFERENCE"
               for tensor in item.given}  # fmt: skip
    made: set[int] = set()
    found = []
    for item in operators:
        outputs = set(map(id, item.outputs))
        centre = item.kind == "MEAN" and outputs & squared
        if id(item) in seeds or centre or any(id(tensor) in made for tensor in item.given):
            found.append(item)
            made |= outputs
    return found


def _all_of(operator: Operator) -> list[Operator]:
    """Returns an operation with those that it runs."""
    inner = [item for body in operator.bodies for item in body.operators]
    return [operator, *(found for item in inner for found in _all_of(item))]


def owner_of(operator: Operator, layers: Mapping[str, bool]) -> str:
    """Returns the layer that an operation is of; where several were fused, that with a kernel.

    LiteRT's converter names what it fuses by all its parts.

    Args:
        operator: Of a file.
        layers: Paths of the model's layers, and whether they hold a kernel; see `kernels_of`.

    Returns:
        Its path; nothing where names do not tell.
    """
    parts = scope_of(operator).split(";")
    paths = [path_of(without_calls(part), layers) for part in parts if part]
    known = [path for path in paths if path != UNNAMED]
    return next((path for path in known if layers[path]), known[0] if known else "")
