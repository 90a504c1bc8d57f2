"""Branches: operands of sums, with the calls that only contribute to them.

A sum of a branch and a shortcut equals the shortcut if the branch is zero. A branch can be removed
if another operand that is kept bypasses it. An operand is a bypass if it is computed without a
nonlinearity (an identity or a projection) from a tensor that the branch depends on, or if both
start from the same tensor and the branch is not such a linear path itself. A linear path beside a
nonlinear one is the shortcut, and is protected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compress.model.keras_internals import get_mask
from compress.model.layers import UNCOUNTED, find_layer_class, is_keras
from compress.model.program import Node, Program, TensorReaders

ONE_STAYS = "one side of the sum must be kept, and this one costs most"
SHORTCUT = "it is the shortcut of a block that may be removed"
NOT_RESIDUAL = "no other side of the sum passes by it: it is no residual branch"
UNSCALED = "the layer that sums scales its other operand"
NO_KERNEL = "no operand of the sum has a layer with a kernel to itself"
SHAPE = "no other operand has the shape and the type of the sum"
MASK = "it ends a Keras mask, which would pass through the sum without it"


def counts_as_linear(node: Node) -> bool:
    """Return whether a call, or every call of a nested model, counts as linear.

    Pooling and normalization do, because shortcuts contain them.
    """
    if node.body is not None:
        return all(map(counts_as_linear, node.body.walk()))
    traits = find_layer_class(node.operation, keras_only=True).traits
    if "linear" not in traits:
        return "linear_by_constant" in traits and len(node.inputs) == 1
    activation = getattr(node.operation, "activation", None)
    return activation is None or getattr(activation, "__name__", "") == "linear"


def has_kernel(node: Node) -> bool:
    """Return whether a layer, or one of a nested model, has a weight that is used in products."""
    if node.body is not None:
        return any(map(has_kernel, node.body.walk()))
    return find_layer_class(node.operation).work not in UNCOUNTED and any(
        len(weight.shape) > 1 for weight in getattr(node.operation, "weights", ())
    )


def find_removable_operands(node: Node) -> Sequence[int]:
    """Return the operand indices of a sum that can be removed; () if the call is not a sum."""
    kind = type(node.operation).__name__ if is_keras(node.operation) else ""
    if kind == "Add" and len(node.inputs) > 1:
        return range(len(node.inputs))
    return (1,) if kind == "CustomScaleLayer" else ()  # first + scale * second


@dataclass(frozen=True, eq=False)
class Branch:
    """One operand of a sum, with the calls that only contribute to it.

    Attributes:
        merge: The sum.
        operand: Index of the operand in `merge.inputs`.
        nodes: The calls, in the order of the program.
        start_tensors: Tensors from outside the branch that the calls read, as bits.
        sources: These tensors and all that they depend on, as bits.
        linear_sources: Tensors that the operand depends on without a nonlinearity, itself included,
            as bits.
        macs: MACs of the calls.
    """

    merge: Node
    operand: int
    nodes: tuple[Node, ...]
    start_tensors: int
    sources: int
    linear_sources: int
    macs: float

    def is_bypass_of(self, other: Branch) -> bool:
        """Return whether this operand bypasses another one of the same sum."""
        if self.linear_sources & other.sources:
            return True
        return (
            bool(self.start_tensors & other.start_tensors)
            and not other.linear_sources & self.sources
        )


class Dataflow:
    """Dependencies between the tensors of one program.

    Args:
        program: The recorded model, or a nested one.
        macs: MACs of each call, by id; for a nested model, those of the calls inside.
    """

    def __init__(self, program: Program, macs: dict[int, float]) -> None:
        self._macs = macs
        self._graph = TensorReaders(program.nodes, program.outputs)
        self._positions = {id(node): index for index, node in enumerate(program.nodes)}
        self._bits: dict[int, int] = {}
        self._sources: dict[int, int] = {}  # tensor -> itself and all tensors that it depends on
        self._linear_sources: dict[int, int] = {}  # the same, without a nonlinearity in between
        for tensor in program.inputs:
            self._register_tensor(tensor, 0, 0)
        for node in program.nodes:
            linear, sources, linear_sources = counts_as_linear(node), 0, 0
            for tensor in node.inputs:
                sources |= self._sources[id(tensor)]
                linear_sources |= self._linear_sources[id(tensor)] if linear else 0
            for tensor in node.outputs:
                self._register_tensor(tensor, sources, linear_sources)

    def _register_tensor(self, tensor: Any, sources: int, linear_sources: int) -> None:
        bit = self._bits[id(tensor)] = 1 << len(self._bits)
        self._sources[id(tensor)] = bit | sources
        self._linear_sources[id(tensor)] = bit | linear_sources

    def trace_branch(self, merge: Node, operand: int) -> Branch:
        """Return the branch of an operand: all calls whose outputs contribute to it only.

        Args:
            merge: The sum.
            operand: Index of the operand in `merge.inputs`.
        """
        nodes_by_id: dict[int, Node] = {}
        if self._graph.count_reads(merge.inputs[operand]) == 1:
            uses: Counter[int] = Counter()
            open_ends = [merge.inputs[operand]]
            while open_ends:
                maker = self._graph.producers.get(id(open_ends.pop()))
                if maker is None:
                    continue
                uses[id(maker)] += 1
                if uses[id(maker)] == sum(map(self._graph.count_reads, maker.outputs)):
                    nodes_by_id[id(maker)] = maker
                    open_ends.extend(maker.inputs)
        nodes = tuple(sorted(nodes_by_id.values(), key=lambda node: self._positions[id(node)]))
        inner_tensors = {id(tensor) for node in nodes for tensor in node.outputs}
        start_tensors = sources = 0
        for tensor in (tensor for node in nodes for tensor in node.inputs):
            if id(tensor) not in inner_tensors:
                start_tensors |= self._bits[id(tensor)]
                sources |= self._sources[id(tensor)]
        return Branch(
            merge,
            operand,
            nodes,
            start_tensors,
            sources,
            self._linear_sources[id(merge.inputs[operand])],
            sum(self._macs.get(id(node), 0.0) for node in nodes),
        )


def check_branches(
    flow: Dataflow, merge: Node, find_obstacle: Callable[[Branch], str]
) -> Iterator[tuple[Branch, str]]:
    """Yield the branches of a sum that have kernels, each with the reason to keep it, or "".

    All branches without a reason can be removed together: a bypass of them is kept.

    Args:
        flow: Dataflow of the sum's program.
        merge: The sum.
        find_obstacle: Returns another reason to keep a branch, or "".
    """
    removable_operands = find_removable_operands(merge)
    branches = [flow.trace_branch(merge, operand) for operand in range(len(merge.inputs))]
    reasons: dict[int, str] = {}
    candidates = []
    for branch in branches:
        if not any(map(has_kernel, branch.nodes)):
            continue
        candidates.append(branch)
        if branch.operand not in removable_operands:
            reasons[branch.operand] = UNSCALED
        elif not any(_has_sum_shape(merge, other) for other in branches if other is not branch):
            reasons[branch.operand] = SHAPE
        elif _is_mask_lost(merge, branch.operand):
            reasons[branch.operand] = MASK
        elif reason := find_obstacle(branch):
            reasons[branch.operand] = reason
    removable = [branch for branch in candidates if branch.operand not in reasons]
    kept = [branch for branch in branches if branch not in removable]
    while True:
        blocked = [
            branch
            for branch in removable
            if not any(
                _has_sum_shape(merge, other) and other.is_bypass_of(branch) for other in kept
            )
        ]
        if not blocked:
            break
        shortcuts = [
            branch
            for branch in blocked
            if any(
                branch.linear_sources & other.sources for other in candidates if other is not branch
            )
        ]
        kept_branch = max(shortcuts or blocked, key=lambda branch: branch.macs)
        removable.remove(kept_branch)
        kept.append(kept_branch)
        reasons[kept_branch.operand] = SHORTCUT if shortcuts else ONE_STAYS
    for branch in candidates:
        reason = reasons.get(branch.operand, "")
        is_not_residual = not removable and reason in (SHORTCUT, ONE_STAYS)
        yield branch, NOT_RESIDUAL if is_not_residual else reason


def _has_sum_shape(merge: Node, branch: Branch) -> bool:
    """Return whether an operand has the shape and the dtype of the sum."""
    operand, result = merge.inputs[branch.operand], merge.outputs[0]
    return (tuple(operand.shape), operand.dtype) == (tuple(result.shape), result.dtype)


def _is_mask_lost(merge: Node, operand: int) -> bool:
    others = [tensor for index, tensor in enumerate(merge.inputs) if index != operand]
    masked = any(get_mask(tensor) is not None for tensor in others)
    return masked and get_mask(merge.outputs[0]) is None
