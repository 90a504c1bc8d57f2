"""Costs of a forward pass at batch size 1, per call, from shapes alone.

`build_call_graph` returns the calls with their inputs as well, for pictures of the model and other
tools.
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
from compress.core.errors import InputError, extract_reason, is_input_too_small
from compress.measure.layer_costs import Analysis, LayerCost, compute_peak_bytes, count_bytes
from compress.measure.rules import (
    CallShapes,
    Shape,
    ShapePlaceholder,
    Uncountable,
    count_other_ops,
    find_rule,
)
from compress.model.file_formats import detect_foreign_model
from compress.model.io import as_model
from compress.model.layers import UNCOUNTED, find_layer_class
from compress.model.ports import InputShape, fill_input_shapes
from compress.model.program import Node, Program
from compress.model.recording import record_program

if TYPE_CHECKING:
    import keras

    from compress.run.compressed_model import CallNode

NO_RULE = "no counting rule for this class"
UNKNOWN_SIZE = (
    "an input size is unknown; give input_shape (--input-shape), or build the model with it"
)


@check_arguments()
def count_macs(model: keras.Model | str | Path, input_shape: InputShape | None = None) -> Analysis:
    """Return the costs of one forward pass at batch size 1, without running the model.

    One fused multiply-add is one MAC; elementwise operations are counted separately.

    Args:
        model: A Functional or Sequential model, a subclassed model that can be traced, or the path
            of a file. Nested models and composite layers are expanded; shared layers count at every
            call. For a `.tflite` file or a SavedModel folder, operators are counted.
        input_shape: Shape of one example, needed if the model's own has unknown sizes. For several
            inputs a list, or a mapping from the names of the open inputs to shapes.

    Returns:
        The analysis: `.macs`, `.params`, `.layers`, ..., and the names of `.unsupported` calls.

    Raises:
        InputError: The model is not a graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> analysis = count_macs(folder / "model.keras")
        >>> analysis.macs, analysis.params
        (112, 131)

    Reference:
        One multiply-accumulate as one MAC, FLOPs = 2 x MACs: docs/results/macs.md has the formulas.
    """
    if isinstance(model, (str, Path)) and detect_foreign_model(Path(model)) is not None:
        from compress.measure.graph_files import read_graph_file

        return read_graph_file(model, input_shape).costs
    propagation = ShapePropagation(record_program(as_model(model), _should_open), input_shape)
    seen: set[int] = set()
    return Analysis(
        tuple(_count_step(step, seen) for step in propagation.steps),
        propagation.compute_peak_bytes(),
    )


def build_call_graph(
    model: keras.Model | str | Path, input_shape: Any = None
) -> tuple[CallNode, ...]:
    """Return the calls of a model, each with its costs and its source calls.

    Args:
        model, input_shape: See `count_macs`, without `.tflite` files and SavedModels.

    Raises:
        InputError: The model is not a graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> nodes = build_call_graph(folder / "model.keras")
        >>> [(node.kind, node.sources) for node in nodes][:2]
        [('Dense', ()), ('Dense', (0,))]
    """
    from compress.run.compressed_model import CallNode

    producers: dict[int, int] = {}
    seen: set[int] = set()
    nodes = []
    for index, step in enumerate(
        ShapePropagation(record_program(as_model(model), _should_open), input_shape).steps
    ):
        cost = _count_step(step, seen)
        sources = dict.fromkeys(
            producers[tensor.key] for tensor in step.inputs if tensor.key in producers
        )
        producers.update((tensor.key, index) for tensor in step.outputs)
        nodes.append(
            CallNode(
                cost.name, cost.kind, tuple(cost.output_shape), cost.macs, cost.params,
                tuple(sources), cost.reason,
            )
        )  # fmt: skip
    return tuple(nodes)


def count_macs_by_node(steps: Iterable[Step]) -> dict[str, int]:
    """Return the MACs of calls by node name, without calls that cannot be counted."""
    macs_by_node: dict[str, int] = {}
    for step in steps:
        count, _ = _count_step_macs(step)
        if count is not None:
            macs_by_node[step.node.name] = macs_by_node.get(step.node.name, 0) + count
    return macs_by_node


def resolve_input_shapes(
    program: Program, input_shape: InputShape | None
) -> list[tuple[int | None, ...]]:
    """Return the shapes of a model's inputs at batch 1, with open sizes filled in.

    Args:
        program: The recorded model.
        input_shape: As in `count_macs`, with or without the batch axis.

    Raises:
        InputError: The shape does not fit the model.
    """
    input_sizes = [
        (name, tuple(tensor.shape)[1:])
        for name, tensor in zip(program.input_names, program.inputs, strict=True)
    ]
    sizes = fill_input_shapes(f"model '{program.model.name}'", input_sizes, input_shape)
    return [(1, *size) for size in sizes]


def _should_open(layer: Any) -> bool:
    """Return whether to expand a layer: it has no counting rule of its own."""
    return not find_layer_class(layer).work


def _count_step(step: Step, seen: set[int]) -> LayerCost:
    """Return a call's costs at batch 1; parameters count only if its operation is not in `seen`."""
    operation = step.node.operation
    weights = getattr(operation, "weights", [])
    new_weights = [] if id(operation) in seen else weights
    seen.add(id(operation))
    count, reason = _count_step_macs(step)
    sizes = [tensor.size_bytes for tensor in (*step.inputs, *step.outputs)]
    known_sizes = [size for size in sizes if size is not None]
    window = getattr(operation, "pool_size", 1)
    other_ops = count_other_ops(
        type(operation).__name__,
        math.prod(step.inputs[0].known_shape or ()) if step.inputs else 0,
        sum(math.prod(tensor.known_shape or ()) for tensor in step.outputs),
        math.prod(window) if isinstance(window, (list, tuple)) else int(window),
    )
    bytes_moved = sum(known_sizes) + sum(
        count_bytes(tuple(weight.shape), str(weight.dtype)) for weight in weights
    )
    return LayerCost(
        step.name,
        type(operation).__name__,
        step.outputs[0].shape[1:] if step.outputs else (),
        count,
        sum(int(np.prod(weight.shape)) for weight in new_weights),
        sum(int(np.count_nonzero(weight.numpy())) for weight in new_weights),
        reason,
        None if count is None else _count_sparse_macs(operation, count),
        other_ops if len(known_sizes) == len(sizes) else None,
        bytes_moved if len(known_sizes) == len(sizes) else None,
    )


def _count_step_macs(step: Step) -> tuple[int | None, str]:
    """Return a call's MACs and "", or None and the reason why they cannot be counted."""
    operation = step.node.operation
    work, rule = find_layer_class(operation).work, find_rule(operation)
    if work in UNCOUNTED:
        return 0, ""
    if rule is None:
        return None, work or step.node.closed_reason or NO_RULE
    inputs: list[Any] = [tensor.known_shape for tensor in step.inputs]
    outputs: list[Any] = [tensor.known_shape for tensor in step.outputs]
    if None in inputs or None in outputs:
        return None, UNKNOWN_SIZE
    args, kwargs = step.node.fill_arguments([ShapePlaceholder(shape) for shape in inputs])
    if len(args) == 1 and isinstance(args[0], (list, tuple)):
        args = tuple(args[0])
    try:
        return int(rule(CallShapes(operation, args, kwargs, tuple(inputs), tuple(outputs)))), ""
    except (Uncountable, ValueError) as error:
        return None, str(error)


def _count_sparse_macs(layer: Any, count: int) -> int:
    """Return the MACs with a non-zero weight; all kernels are applied at the same positions."""
    names = ("depthwise_kernel", "pointwise_kernel", "kernel")
    found = (getattr(layer, name, None) for name in names)
    kernels = [kernel.numpy() for kernel in found if kernel is not None]
    size = sum(kernel.size for kernel in kernels)
    nonzero = sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    return round(count * nonzero / size) if count and size else count


# -- shape propagation -----------------------------------------------------------------------


@dataclass(frozen=True)
class SizedTensor:
    """A tensor of the traversal: its key, shape at batch 1 and dtype."""

    key: int
    shape: tuple[int | None, ...]
    dtype: str

    @property
    def known_shape(self) -> Shape | None:
        """Shape, or None if a size is unknown."""
        sizes = tuple(size for size in self.shape if size is not None)
        return sizes if len(sizes) == len(self.shape) else None

    @property
    def size_bytes(self) -> int | None:
        """Size in bytes, or None if unknown."""
        return None if self.known_shape is None else count_bytes(self.known_shape, self.dtype)


@dataclass(frozen=True)
class Step:
    """One call of the traversal, including calls in nested models."""

    name: str
    node: Node
    inputs: tuple[SizedTensor, ...]
    outputs: tuple[SizedTensor, ...]


class ShapePropagation:
    """Traversal of a program with shapes instead of values.

    Args:
        program: The recorded model.
        input_shape: As in `count_macs`. If given, all inner shapes are inferred from it.

    Attributes:
        steps: Calls in execution order.

    Raises:
        InputError: `input_shape` does not fit.
    """

    def __init__(self, program: Program, input_shape: InputShape | None) -> None:
        self.steps: list[Step] = []
        self._keys = itertools.count()
        self._should_infer_shapes = input_shape is not None and program.has_open_sizes
        batches = {tensor.shape[0] for tensor in program.inputs if tensor.shape}
        self._batch = batches.pop() if len(batches) == 1 else None
        input_tensors = [
            self._create_tensor(shape, tensor.dtype)
            for shape, tensor in zip(
                resolve_input_shapes(program, input_shape), program.inputs, strict=True
            )
        ]
        self._results = self._propagate(program, input_tensors, "")

    def _create_tensor(self, shape: Sequence[int | None], dtype: str) -> SizedTensor:
        sizes = tuple(None if size is None else int(size) for size in shape)
        # an open first axis is the batch: one example
        if sizes[:1] == (None,):
            sizes = (1, *sizes[1:])
        return SizedTensor(next(self._keys), sizes, str(dtype))

    def _read_graph_tensor(self, tensor: Any) -> SizedTensor:
        """Return a tensor with the shape recorded in the graph, at batch 1."""
        shape = tuple(tensor.shape)
        fixed = shape[:1] == (self._batch,) and shape
        return self._create_tensor((1, *shape[1:]) if fixed else shape, tensor.dtype)

    def _propagate(
        self, program: Program, input_tensors: Sequence[SizedTensor], prefix: str
    ) -> list[SizedTensor]:
        """Append a program's calls to `steps`, nested models included, and return its outputs."""

        def visit_call(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            # a nested model may be built for open sizes and called with known ones
            has_known_inputs = all(tensor.known_shape is not None for tensor in inputs)
            open_sizes = any(None in tuple(tensor.shape)[1:] for tensor in node.outputs)
            if self._should_infer_shapes or (
                has_known_inputs and (open_sizes or _has_folded_batch(node, inputs))
            ):
                specs = _infer_outputs(f"{prefix}{node.name}", node, inputs)
                outputs = tuple(self._create_tensor(tensor.shape, tensor.dtype) for tensor in specs)
            else:
                outputs = tuple(map(self._read_graph_tensor, node.outputs))
            self.steps.append(Step(f"{prefix}{node.name}", node, tuple(inputs), outputs))
            return outputs

        def visit_nested(node: Node, inputs: list[SizedTensor]) -> Sequence[SizedTensor]:
            assert node.body is not None
            return self._propagate(node.body, inputs, f"{prefix}{node.name}/")

        return program.interpret(visit_call, input_tensors, visit_nested)

    def compute_peak_bytes(self) -> int | None:
        """Return the peak bytes of live tensors; None if a size is unknown."""
        calls = [
            ({tensor.key: tensor.size_bytes for tensor in (*step.inputs, *step.outputs)}, 0)
            for step in self.steps
        ]
        return compute_peak_bytes(calls, [tensor.key for tensor in self._results])


def _has_folded_batch(node: Node, inputs: Sequence[SizedTensor]) -> bool:
    """Return whether the open first axis may include other axes than the batch."""
    if all(tuple(tensor.shape)[:1] != (None,) for tensor in node.outputs):
        return False
    return type(node.operation).__name__ == "Reshape" or any(
        tuple(tensor.shape)[:1] == (None,) and sized_tensor.shape[0] != 1
        for tensor, sized_tensor in zip(node.inputs, inputs, strict=True)
    )


def _infer_outputs(name: str, node: Node, inputs: Sequence[SizedTensor]) -> list[Any]:
    """Return the symbolic outputs of a call for inputs of known shapes."""
    try:
        return node.infer_output_specs(inputs)
    except ValueError as error:
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        remedy = (
            " The input is too small for the layers in front of it: give a larger one "
            "(--input-shape, in Python input_shape=)."
            if is_input_too_small(error)
            else ""
        )
        raise InputError(
            f"Layer '{name}' must take inputs of the shape that it has for this input size. "
            f"Received: {shapes} ({extract_reason(error, 160)}).{remedy}"
        ) from None
