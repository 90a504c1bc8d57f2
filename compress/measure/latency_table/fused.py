"""Which calls a runtime runs as one: a kernel, its normalization and the ReLU behind it.

LiteRT's converter and ONNX Runtime fold a batch normalization into the kernel before it, take a
ReLU or ReLU6 into the kernel or the sum before it, and explicit padding into the convolution
behind it. Single calls would add up to more than the model takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from compress.measure.counting import SizedTensor, Step
from compress.model.layers import class_named, class_of, select_classes
from compress.model.program import Readers

_CONVOLUTIONS = select_classes("convolution", "depthwise", "separable")
_KERNELS = _CONVOLUTIONS | select_classes("dense", "transposed")
_MERGES = ("Add", "Subtract", "Multiply")
_LINEAR = ("linear", "")
_RELUS = ("relu", "relu6")


@dataclass(frozen=True, eq=False)
class Unit:
    """Calls that a runtime runs as one, a chain in their order.

    Attributes:
        steps: The calls.
    """

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """Of the layer that does the work: a kernel where there is one, else the first."""
        kernels = [step for step in self.steps if kind_of(step) in _KERNELS]
        return (kernels or [*self.steps])[0].node.name

    @property
    def inputs(self) -> tuple[tuple[SizedTensor, Any], ...]:
        """What comes from outside, each once: as the walk knows it, and the symbolic tensor."""
        made = {tensor.key for step in self.steps for tensor in step.outputs}
        found = {
            tensor.key: (tensor, symbolic)
            for step in self.steps
            for tensor, symbolic in zip(step.inputs, step.node.inputs, strict=True)
            if tensor.key not in made
        }
        return tuple(found.values())

    @property
    def outputs(self) -> tuple[tuple[SizedTensor, Any], ...]:
        """What the last call makes, likewise."""
        last = self.steps[-1]
        return tuple(zip(last.outputs, last.node.outputs, strict=True))


def kind_of(step: Step) -> str:
    """Return the class name of a call's layer or operation."""
    return type(step.node.operation).__name__


def units_of(steps: Sequence[Step], outputs: Collection[Any]) -> list[Unit]:
    """Return the units of a model; calls that compute nothing in inference belong to none.

    Args:
        steps: All calls, in their order.
        outputs: The model's symbolic outputs: what is behind one of them is not fused with it.
    """
    graph = _readers(steps, outputs)
    taken: set[int] = set()
    found = []
    for step in steps:
        if id(step) in taken:
            continue
        chain = [step]
        while (following := _only_user(chain[-1], graph)) and fuses(chain, following):
            chain.append(following)
        taken.update(map(id, chain))
        if not all(_computes_nothing(part) for part in chain):
            found.append(Unit(tuple(chain)))
    return found


def _readers(steps: Sequence[Step], outputs: Collection[Any]) -> Readers[Step]:
    returned = set(map(id, outputs))
    ends = [
        tensor
        for step in steps
        for tensor, own in zip(step.outputs, step.node.outputs, strict=True)
        if id(own) in returned
    ]
    return Readers(steps, ends, attrgetter("key"))


def _only_user(step: Step, graph: Readers[Step]) -> Step | None:
    """Return the only consumer of a call's output; None: there are others, or none."""
    return graph.only_user(step.outputs[0]) if len(step.outputs) == 1 else None


def fuses(chain: Sequence[Step], following: Step) -> bool:
    """Return whether runtimes run a call together with those before it.

    Args:
        chain: Calls in a row, the unit so far.
        following: The only call that takes what the last of them makes.
    """
    kinds = [kind_of(step) for step in chain if not _computes_nothing(step)]
    if not kinds:
        return False
    if _computes_nothing(following):
        return True
    kind, kernel = kind_of(following), kinds[-1] in _KERNELS
    if "pads" in class_named(kinds[-1]).traits:
        return kind in _CONVOLUTIONS and following.node.operation.padding == "valid"
    if any(_activation(step.node.operation) not in _LINEAR for step in chain):
        return False
    if _relu(following):
        return kernel or kinds[-1] in _MERGES or kinds[-1] == "BatchNormalization"
    return kind == "BatchNormalization" and kernel


def _relu(step: Step) -> bool:
    """Return whether a call is a ReLU or ReLU6, which kernels take in."""
    operation, kind = step.node.operation, kind_of(step)
    if kind == "ReLU":
        slope, threshold = operation.negative_slope, operation.threshold
        return operation.max_value in (None, 6) and not slope and not threshold
    return kind in ("Relu", "Relu6") or (kind == "Activation" and _activation(operation) in _RELUS)


def _activation(operation: Any) -> str:
    """Return the name of the activation that a layer applies; empty: none."""
    function = getattr(operation, "activation", None)
    if function is None:
        return ""
    return str(getattr(function, "__name__", type(function).__name__))


def _computes_nothing(step: Step) -> bool:
    operation = step.node.operation
    return "inert" in class_of(operation).traits or (
        kind_of(step) == "Activation" and _activation(operation) in _LINEAR
    )


def leaving(steps: Sequence[Step], layers: Collection[str], outputs: Collection[Any]) -> set[int]:
    """Return which calls are not made when a residual branch leaves, by id of the step.

    Args:
        steps: All calls, in their order.
        layers: Names of the branch's layers. What comes of them alone leaves with them, and what
            nothing else takes; a sum that keeps one operand passes it on.
        outputs: The model's symbolic outputs.
    """
    graph = _readers(steps, outputs)
    gone = {id(step) for step in steps if {step.name, step.node.name} & set(layers)}
    dead = {tensor.key for step in steps if id(step) in gone for tensor in step.outputs}
    passing: set[int] = set()
    for step in steps:
        keys = [tensor.key for tensor in step.inputs]
        left = sum(key not in dead for key in keys)
        if id(step) in gone or not keys or left == len(keys):
            continue
        if left == 0:
            gone.add(id(step))
            dead.update(tensor.key for tensor in step.outputs)
        elif left == 1:
            passing.add(id(step))
    for step in reversed(steps):
        takers = [user for tensor in step.outputs for user in graph.users(tensor)]
        end = any(map(graph.is_output, step.outputs))
        if takers and not end and all(id(user) in gone for user in takers):
            gone.add(id(step))
    return gone | passing
