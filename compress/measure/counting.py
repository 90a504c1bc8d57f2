"""Costs of a forward pass at batch size 1, call by call, from shapes alone.

`graph_of` adds to each call those that it reads: what a picture of the
model, or another tool, needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.errors import InputError, is_too_small, reason_of
from compress.measure.layer_costs import Analysis, LayerCost, peak_bytes
from compress.measure.rules import CallShapes, Shape, Sized, Uncountable, other_ops, rule_of
from compress.model.io import as_model
from compress.model.kinds import foreign
from compress.model.layers import UNCOUNTED, class_of
from compress.model.ports import InputShape, sizes_of
from compress.model.program import Node, Program
from compress.model.recording import record

if TYPE_CHECKING:
    import keras

    from compress.run.compressed import CallNode

NO_RULE = "no counting rule for this class"
UNKNOWN = "an input size is unknown; give input_shape (--input-shape), or build the model with it"


@check_arguments()
def count_macs(model: keras.Model | str | Path, input_shape: InputShape | None = None) -> Analysis:
    """Count the costs of one forward pass at batch size 1; nothing is run.

    One fused multiply-add is one MAC; elementwise work is counted apart.

    Args:
        model: Functional, Sequential, or subclassed where it can be traced, or the path of a
            file; nested models and layers made of layers are opened, shared layers counted at
            every call. Of a `.tflite` file or a SavedModel's folder operators are counted.
        input_shape: Of one example, where the model's own has unknown sizes; of a model with
            several inputs one for each, in a list, or by name (those that are open).

    Returns:
        The analysis: `.macs`, `.params`, `.layers`, ..., and `.unsupported` by name.

    Raises:
        InputError: The model is no graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> analysis = count_macs(folder / "model.keras")
        >>> analysis.macs, analysis.params
        (112, 131)

    Reference:
        One multiply-accumulate as one MAC, FLOPs = 2 x MACs: docs/macs.md has the formulas.
    """
    if isinstance(model, (str, Path)) and foreign(Path(model)) is not None:
        from compress.measure.graph_files import read_graph_file

        return read_graph_file(model, input_shape).costs
    walk = Walk(record(as_model(model), _opens), input_shape)
    seen: set[int] = set()
    return Analysis(tuple(_cost(step, seen) for step in walk.steps), walk.peak())


def graph_of(model: keras.Model | str | Path, input_shape: Any = None) -> tuple[CallNode, ...]:
    """Return the calls of a model, each with its costs and the calls that it reads.

    Args:
        model, input_shape: See `count_macs`.

    Raises:
        InputError: The model is no graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> nodes = graph_of(folder / "model.keras")
        >>> [(node.kind, node.sources) for node in nodes][:2]
        [('Dense', ()), ('Dense', (0,))]
    """
    from compress.run.compressed import CallNode

    maker: dict[int, int] = {}
    seen: set[int] = set()
    found = []
    for place, step in enumerate(Walk(record(as_model(model), _opens), input_shape).steps):
        cost = _cost(step, seen)
        sources = dict.fromkeys(maker[tensor.key] for tensor in step.inputs if tensor.key in maker)
        maker.update((tensor.key, place) for tensor in step.outputs)
        found.append(
            CallNode(
                cost.name, cost.kind, tuple(cost.output_shape), cost.macs, cost.params,
                tuple(sources), cost.reason,
            )
        )  # fmt: skip
    return tuple(found)


def count_calls(steps: Iterable[Step]) -> dict[str, int]:
    """Return the MACs of calls by the names of their nodes; uncountable ones lack."""
    found: dict[str, int] = {}
    for step in steps:
        count, _ = _macs(step)
        if count is not None:
            found[step.node.name] = found.get(step.node.name, 0) + count
    return found


def given_shapes(program: Program, input_shape: InputShape | None) -> list[tuple[int | None, ...]]:
    """Return the shapes of a model's inputs at batch 1, open sizes as given.

    Args:
        program: The recorded model.
        input_shape: As `count_macs` takes it, with or without the batch axis.

    Raises:
        InputError: It does not fit the model.
    """
    own = [
        (name, tuple(tensor.shape)[1:])
        for name, tensor in zip(program.input_names, program.inputs, strict=True)
    ]
    sizes = sizes_of(f"model '{program.model.name}'", own, input_shape)
    return [(1, *size) for size in sizes]


def _opens(layer: Any) -> bool:
    """Open layers made of layers that have no rule of their own."""
    return not class_of(layer).work


def _cost(step: Step, seen: set[int]) -> LayerCost:
    operation = step.node.operation
    weights = getattr(operation, "weights", [])
    own = [] if id(operation) in seen else weights
    seen.add(id(operation))
    count, reason = _macs(step)
    sizes = [tensor.bytes for tensor in (*step.inputs, *step.outputs)]
    known = [size for size in sizes if size is not None]
    window = getattr(operation, "pool_size", 1)
    others = other_ops(
        type(operation).__name__,
        math.prod(step.inputs[0].known or ()) if step.inputs else 0,
        sum(math.prod(tensor.known or ()) for tensor in step.outputs),
        math.prod(window) if isinstance(window, (list, tuple)) else int(window),
    )
    moved = sum(known) + sum(int(np.prod(w.shape)) * width(str(w.dtype)) for w in weights)
    return LayerCost(
        step.name,
        type(operation).__name__,
        step.outputs[0].shape[1:] if step.outputs else (),
        count,
        sum(int(np.prod(weight.shape)) for weight in own),
        sum(int(np.count_nonzero(weight.numpy())) for weight in own),
        reason,
        None if count is None else _sparse(operation, count),
        others if len(known) == len(sizes) else None,
        moved if len(known) == len(sizes) else None,
    )


def _macs(step: Step) -> tuple[int | None, str]:
    operation = step.node.operation
    work, rule = class_of(operation).work, rule_of(operation)
    if work in UNCOUNTED:
        return 0, ""
    if rule is None:
        return None, work or step.node.closed or NO_RULE
    inputs: list[Any] = [tensor.known for tensor in step.inputs]
    outputs: list[Any] = [tensor.known for tensor in step.outputs]
    if None in inputs or None in outputs:
        return None, UNKNOWN
    args, kwargs = step.node.arguments([Sized(shape) for shape in inputs])
    if len(args) == 1 and isinstance(args[0], (list, tuple)):
        args = tuple(args[0])
    try:
        return int(rule(CallShapes(operation, args, kwargs, tuple(inputs), tuple(outputs)))), ""
    except (Uncountable, ValueError) as error:
        return None, str(error)


def _sparse(layer: Any, count: int) -> int:
    """Return the MACs with non-zero weights: every weight of a kernel is used as often."""
    kernels = [getattr(layer, name, None) for name in ("depthwise_kernel", "pointwise_kernel")]
    if kernels[0] is None or kernels[1] is None:
        kernel = getattr(layer, "kernel", None) if count else None
        return count if kernel is None else round(count * _density(kernel))
    # the depthwise kernel meets as many positions as the pointwise one
    sizes = [int(np.prod(kernel.shape)) for kernel in kernels if kernel is not None]
    positions = count / sum(sizes)
    return round(
        sum(positions * size * _density(k) for size, k in zip(sizes, kernels, strict=True))
    )


def _density(kernel: Any) -> float:
    return float(np.count_nonzero(kernel.numpy())) / max(1, int(np.prod(kernel.shape)))


# -- a model with shapes in place of values --------------------------------------------------


@dataclass(frozen=True)
class SizedTensor:
    """A tensor of the walk: its key, its shape at batch 1, its type."""

    key: int
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def known(self) -> Shape | None:
        """Its shape, or None where a size is unknown."""
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def bytes(self) -> int | None:
        """Its size in bytes, or None."""
        return None if self.known is None else math.prod(self.known) * width(self.dtype)


@dataclass(frozen=True)
class Step:
    """One call of the walk, nested models' calls among them."""

    name: str
    node: Node
    inputs: tuple[SizedTensor, ...]
    outputs: tuple[SizedTensor, ...]


class Walk:
    """A walk through a program with shapes in place of values.

    Args:
        program: The recorded model.
        input_shape: As `count_macs` takes it; with one, inner shapes follow from it.

    Attributes:
        steps: Its calls, in their order.

    Raises:
        InputError: `input_shape` does not fit.
    """

    def __init__(self, program: Program, input_shape: InputShape | None) -> None:
        self.steps: list[Step] = []
        self._keys = itertools.count()
        self._reshape = input_shape is not None and program.open_sizes
        batches = {tensor.shape[0] for tensor in program.inputs if tensor.shape}
        self._batch = batches.pop() if len(batches) == 1 else None
        given = [
            self._tensor(shape, tensor.dtype)
            for shape, tensor in zip(
                given_shapes(program, input_shape), program.inputs, strict=True
            )
        ]
        self._results = self._walk(program, given, "")

    def _tensor(self, shape: Sequence[int | None], dtype: str) -> SizedTensor:
        sizes = tuple(None if size is None else int(size) for size in shape)
        # a batch that runs through the graph is one example
        if sizes[:1] == (None,):
            sizes = (1, *sizes[1:])
        return SizedTensor(next(self._keys), sizes, str(dtype))

    def _stored(self, tensor: Any) -> SizedTensor:
        """Take a shape from the graph, whose batch may be fixed."""
        shape = tuple(tensor.shape)
        fixed = shape[:1] == (self._batch,) and shape
        return self._tensor((1, *shape[1:]) if fixed else shape, tensor.dtype)

    def _walk(
        self, program: Program, given: Sequence[SizedTensor], prefix: str
    ) -> list[SizedTensor]:
        def call(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            # a nested model may be built for open sizes and be called with known ones
            known = all(tensor.known is not None for tensor in inputs)
            open_sizes = any(None in tuple(tensor.shape)[1:] for tensor in node.outputs)
            if self._reshape or (known and (open_sizes or _folded(node, inputs))):
                made = _specs(f"{prefix}{node.name}", node, inputs)
                outputs = tuple(self._tensor(tensor.shape, tensor.dtype) for tensor in made)
            else:
                outputs = tuple(map(self._stored, node.outputs))
            self.steps.append(Step(f"{prefix}{node.name}", node, tuple(inputs), outputs))
            return outputs

        def nested(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            assert node.body is not None
            return self._walk(node.body, inputs, f"{prefix}{node.name}/")

        return program.interpret(call, given, nested)

    def peak(self) -> int | None:
        """Return the most bytes alive at one time."""
        calls = [
            ({tensor.key: tensor.bytes for tensor in (*step.inputs, *step.outputs)}, 0)
            for step in self.steps
        ]
        return peak_bytes(calls, [tensor.key for tensor in self._results])


def _folded(node: Node, inputs: Sequence[SizedTensor]) -> bool:
    """Return whether the open first axis may hold more than the batch: positions folded in."""
    if all(tuple(tensor.shape)[:1] != (None,) for tensor in node.outputs):
        return False
    return type(node.operation).__name__ == "Reshape" or any(
        tuple(tensor.shape)[:1] == (None,) and found.shape[0] != 1
        for tensor, found in zip(node.inputs, inputs, strict=True)
    )


def _specs(name: str, node: Node, inputs: Sequence[SizedTensor]) -> list[Any]:
    """Return symbolic outputs of a call for inputs of the shapes known by now."""
    try:
        return node.output_specs(inputs)
    except ValueError as error:
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        remedy = (
            " The input is too small for the layers in front of it: give a larger one "
            "(--input-shape, in Python input_shape=)."
            if is_too_small(error)
            else ""
        )
        raise InputError(
            f"Layer '{name}' must take inputs of the shape that it has for this input size. "
            f"Received: {shapes} ({reason_of(error, 160)}).{remedy}"
        ) from None


def width(dtype: str) -> int:
    """Return the bytes of one number."""
    if dtype in ("bool", "string"):
        return 1
    digits = "".join(c for c in dtype if c.isdigit())
    return int(digits) // 8 if digits else 4
