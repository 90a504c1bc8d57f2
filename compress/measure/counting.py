"""Counts what a forward pass at batch size 1 costs, call by call, from shapes alone.

`graph_of` adds to each call those that it reads: what a picture of the
model, or another tool, needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.measure.graph_files import read_graph_file
from compress.measure.layer_costs import Analysis, LayerCost
from compress.measure.rules import CallShapes, Sized, Uncountable, other_ops, rule_of
from compress.measure.walk import Step, Walk, width
from compress.model.io import as_model
from compress.model.kinds import foreign
from compress.model.layers import UNCOUNTED, class_of
from compress.model.ports import InputShape, sizes_of
from compress.model.program import Program
from compress.model.recording import record
from compress.run.exports import CallNode

if TYPE_CHECKING:
    import keras

NO_RULE = "no counting rule for this class"
UNKNOWN = "an input size is unknown; give input_shape (--input-shape), or build the model with it"


@check_arguments()
def count_macs(model: keras.Model | str | Path, input_shape: InputShape | None = None) -> Analysis:
    """Counts the costs of one forward pass at batch size 1; nothing is run.

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
        return read_graph_file(model, input_shape).costs
    program = record(as_model(model), _opens)
    walk = _walk(program, input_shape)
    seen: set[int] = set()
    rows = [_cost(step, seen) for step in walk.steps]
    return Analysis(tuple(rows), walk.peak())


def graph_of(model: keras.Model | str | Path, input_shape: Any = None) -> tuple[CallNode, ...]:
    """Returns the calls of a model, each with its costs and the calls that it reads.

    Args:
        model, input_shape: See `count_macs`.

    Raises:
        InputError: The model is no graph and cannot be traced, or `input_shape` does not fit.

    Example:
        >>> nodes = graph_of(folder / "model.keras")
        >>> [(node.kind, node.sources) for node in nodes][:2]
        [('Dense', ()), ('Dense', (0,))]
    """
    maker: dict[int, int] = {}
    seen: set[int] = set()
    found = []
    # all steps are held: tensors live as long as their identities are asked for
    steps = walked(record(as_model(model), _opens), input_shape)
    for place, step in enumerate(steps):
        cost = _cost(step, seen)
        sources = dict.fromkeys(maker[id(tensor)] for tensor in step.inputs if id(tensor) in maker)
        maker.update((id(tensor), place) for tensor in step.outputs)
        found.append(
            CallNode(
                cost.name, cost.kind, tuple(cost.output_shape), cost.macs, cost.params,
                tuple(sources), cost.reason,
            )
        )  # fmt: skip
    return tuple(found)


def walked(program: Program, input_shape: InputShape | None) -> list[Step]:
    """Returns the calls of a recorded model in their order, with the sizes at `input_shape`.

    Raises:
        InputError: `input_shape` does not fit.
    """
    return _walk(program, input_shape).steps


def count_calls(steps: Iterable[Step]) -> dict[str, int]:
    """Returns the MACs of calls by the names of their nodes; uncountable ones lack."""
    found: dict[str, int] = {}
    for step in steps:
        count, _ = _macs(step)
        if count is not None:
            found[step.node.name] = found.get(step.node.name, 0) + count
    return found


def given_shapes(program: Program, input_shape: InputShape | None) -> list[tuple[int | None, ...]]:
    """Returns the shapes of a model's inputs at batch 1, open sizes as given.

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
    what = f"model '{program.model.name}'"
    return [(1, *sizes) for sizes in sizes_of(what, own, input_shape)]


def _walk(program: Program, input_shape: InputShape | None) -> Walk:
    walk = Walk()
    shapes = given_shapes(program, input_shape)
    walk.run(program, shapes, reshape=input_shape is not None and program.open_sizes)
    return walk


def _opens(layer: Any) -> bool:
    """Opens layers made of layers that have no rule of their own."""
    return not class_of(layer).work


def _cost(step: Step, seen: set[int]) -> LayerCost:
    operation = step.node.operation
    weights = getattr(operation, "weights", [])
    own = [] if id(operation) in seen else weights
    seen.add(id(operation))
    count, reason = _macs(step)
    sizes = [tensor.bytes for tensor in (*step.inputs, *step.outputs)]
    known = [size for size in sizes if size is not None]
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
        _others(step) if len(known) == len(sizes) else None,
        moved if len(known) == len(sizes) else None,
    )


def _macs(step: Step) -> tuple[int | None, str]:
    operation = step.node.operation
    work, rule = class_of(operation).work, rule_of(operation)
    if work in UNCOUNTED:
        return 0, ""
    if rule is None:
        return None, work or step.node.closed or NO_RULE
    inputs = [tensor.known for tensor in step.inputs]
    outputs = [tensor.known for tensor in step.outputs]
    if None in inputs or None in outputs:
        return None, UNKNOWN
    try:
        return int(rule(_shapes(step, inputs, outputs))), ""
    except (Uncountable, ValueError) as error:
        return None, str(error)


def _shapes(step: Step, inputs: list[Any], outputs: list[Any]) -> CallShapes:
    node = step.node
    args, kwargs = node.arguments([Sized(shape) for shape in inputs])
    if len(args) == 1 and isinstance(args[0], (list, tuple)):
        args = tuple(args[0])
    return CallShapes(node.operation, args, kwargs, tuple(inputs), tuple(outputs))


def _others(step: Step) -> int:
    operation = step.node.operation
    window = getattr(operation, "pool_size", 1)
    return other_ops(
        type(operation).__name__,
        math.prod(step.inputs[0].known or ()) if step.inputs else 0,
        sum(math.prod(tensor.known or ()) for tensor in step.outputs),
        math.prod(window) if isinstance(window, (list, tuple)) else int(window),
    )


def _sparse(layer: Any, count: int) -> int:
    """Returns the MACs with non-zero weights: every weight of a kernel is used as often."""
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
