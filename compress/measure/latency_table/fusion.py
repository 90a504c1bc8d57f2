"""Calls that a runtime fuses: a kernel, its normalization and the ReLU behind it.

LiteRT's converter and ONNX Runtime fold a batch normalization into the kernel before it, fuse a
ReLU or ReLU6 with the kernel or the sum before it, and fold explicit padding into the convolution
behind it. The sum of the times of unfused calls would exceed the model's latency.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from compress.measure.counting import SizedTensor, Step
from compress.model.layers import find_layer_class, find_named_class, select_classes
from compress.model.program import TensorReaders

_CONVOLUTIONS = select_classes("convolution", "depthwise", "separable")
_KERNELS = _CONVOLUTIONS | select_classes("dense", "transposed")
_MERGES = ("Add", "Subtract", "Multiply")
_LINEAR = ("linear", "")
_RELUS = ("relu", "relu6")


@dataclass(frozen=True, eq=False)
class FusedCalls:
    """Calls that a runtime runs as one kernel.

    Attributes:
        steps: The calls, in execution order.
    """

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Name of the layer that does the work: the first kernel, or else the first call."""
        kernels = [step for step in self.steps if get_class_name(step) in _KERNELS]
        return (kernels or [*self.steps])[0].node.name

    @property
    def inputs(self) -> tuple[tuple[SizedTensor, Any], ...]:
        """Inputs from other calls, without duplicates: (sized tensor, symbolic tensor)."""
        produced_keys = {tensor.key for step in self.steps for tensor in step.outputs}
        inputs_by_key = {
            tensor.key: (tensor, symbolic)
            for step in self.steps
            for tensor, symbolic in zip(step.inputs, step.node.inputs, strict=True)
            if tensor.key not in produced_keys
        }
        return tuple(inputs_by_key.values())

    @property
    def outputs(self) -> tuple[tuple[SizedTensor, Any], ...]:
        """Outputs of the last call: (sized tensor, symbolic tensor)."""
        last = self.steps[-1]
        return tuple(zip(last.outputs, last.node.outputs, strict=True))


def get_class_name(step: Step) -> str:
    """Return the class name of a call's layer or operation."""
    return type(step.node.operation).__name__


def fuse_calls(steps: Sequence[Step], outputs: Collection[Any]) -> list[FusedCalls]:
    """Return the fused calls of a model, without calls that compute nothing in inference.

    Args:
        steps: All calls, in execution order.
        outputs: The model's symbolic outputs; nothing is fused across a model output.
    """
    graph = _find_readers(steps, outputs)
    fused_ids: set[int] = set()
    groups = []
    for step in steps:
        if id(step) in fused_ids:
            continue
        chain = [step]
        while (following := _find_only_user(chain[-1], graph)) and can_fuse(chain, following):
            chain.append(following)
        fused_ids.update(map(id, chain))
        if not all(_is_inert(part) for part in chain):
            groups.append(FusedCalls(tuple(chain)))
    return groups


def _find_readers(steps: Sequence[Step], outputs: Collection[Any]) -> TensorReaders[Step]:
    output_ids = set(map(id, outputs))
    output_tensors = [
        tensor
        for step in steps
        for tensor, symbolic in zip(step.outputs, step.node.outputs, strict=True)
        if id(symbolic) in output_ids
    ]
    return TensorReaders(steps, output_tensors, attrgetter("key"))


def _find_only_user(step: Step, graph: TensorReaders[Step]) -> Step | None:
    """Return the only consumer of a call's output; None if there are none or several."""
    return graph.find_only_reader(step.outputs[0]) if len(step.outputs) == 1 else None


def can_fuse(chain: Sequence[Step], following: Step) -> bool:
    """Return whether runtimes fuse a call with those before it.

    Args:
        chain: Consecutive calls that are fused so far.
        following: The only call that reads the output of the last one.
    """
    kinds = [get_class_name(step) for step in chain if not _is_inert(step)]
    if not kinds:
        return False
    if _is_inert(following):
        return True
    kind, kernel = get_class_name(following), kinds[-1] in _KERNELS
    if "pads" in find_named_class(kinds[-1]).traits:
        return kind in _CONVOLUTIONS and following.node.operation.padding == "valid"
    if any(_find_activation(step.node.operation) not in _LINEAR for step in chain):
        return False
    if _is_relu(following):
        return kernel or kinds[-1] in _MERGES or kinds[-1] == "BatchNormalization"
    return kind == "BatchNormalization" and kernel


def _is_relu(step: Step) -> bool:
    """Return whether a call is a ReLU or ReLU6, which runtimes fuse with kernels."""
    operation, kind = step.node.operation, get_class_name(step)
    if kind == "ReLU":
        slope, threshold = operation.negative_slope, operation.threshold
        return operation.max_value in (None, 6) and not slope and not threshold
    return kind in ("Relu", "Relu6") or (
        kind == "Activation" and _find_activation(operation) in _RELUS
    )


def _find_activation(operation: Any) -> str:
    """Return the name of a layer's activation ("linear": identity); empty without the attribute."""
    function = getattr(operation, "activation", None)
    if function is None:
        return ""
    return str(getattr(function, "__name__", type(function).__name__))


def _is_inert(step: Step) -> bool:
    operation = step.node.operation
    return "inert" in find_layer_class(operation).traits or (
        get_class_name(step) == "Activation" and _find_activation(operation) in _LINEAR
    )


def find_removed_calls(
    steps: Sequence[Step], layers: Collection[str], outputs: Collection[Any]
) -> set[int]:
    """Return the ids of the calls that are skipped when a residual branch is removed.

    Args:
        steps: All calls, in execution order.
        layers: Names of the branch's layers. Calls that only depend on them, or that only they
            read, are removed too. A sum with one remaining operand passes it on and costs nothing.
        outputs: The model's symbolic outputs.

    Returns:
        `id(step)` of each removed call.
    """
    graph = _find_readers(steps, outputs)
    removed = {id(step) for step in steps if {step.name, step.node.name} & set(layers)}
    dead = {tensor.key for step in steps if id(step) in removed for tensor in step.outputs}
    passthrough: set[int] = set()
    for step in steps:
        keys = [tensor.key for tensor in step.inputs]
        live_inputs = sum(key not in dead for key in keys)
        if id(step) in removed or not keys or live_inputs == len(keys):
            continue
        if live_inputs == 0:
            removed.add(id(step))
            dead.update(tensor.key for tensor in step.outputs)
        elif live_inputs == 1:
            passthrough.add(id(step))
    for step in reversed(steps):
        users = [user for tensor in step.outputs for user in graph.list_readers(tensor)]
        end = any(map(graph.is_output, step.outputs))
        if users and not end and all(id(user) in removed for user in users):
            removed.add(id(step))
    return removed | passthrough
