"""Branches: operands of sums with the calls that nothing else needs.

A sum of a branch and a shortcut is the shortcut where the branch is zero. An operand may leave
where another one stays that leads straight back, without a nonlinearity, to something that the
branch comes of: an identity, a projection. Or where both begin with one tensor and neither leads
straight back. What leads straight back itself, beside one that does not, is the shortcut: it stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compress.model.internals import mask_of
from compress.model.layers import UNCOUNTED, class_of, is_keras
from compress.model.program import Node, Program, Readers

ONE_STAYS = "one side of the sum must stay, and it costs most"
SHORTCUT = "it is the shortcut of a branch that may leave"
NOT_RESIDUAL = "no other side of the sum passes by it: it is no residual branch"
UNSCALED = "the layer that sums scales its other operand"
NO_KERNEL = "no operand of the sum has a layer with a kernel to itself"
SHAPE = "no other operand has the shape and the type of the sum"
MASK = "it ends a Keras mask, which would pass through the sum without it"


def is_linear(node: Node) -> bool:
    """Return whether a call, or every call of a nested model, has no nonlinearity.

    Pooling and normalization count as linear: shortcuts are made of them.
    """
    if node.body is not None:
        return all(map(is_linear, node.body.walk()))
    traits = class_of(node.operation, keras_only=True).traits
    if "linear" not in traits:
        return "linear_by_constant" in traits and len(node.inputs) == 1
    activation = getattr(node.operation, "activation", None)
    return activation is None or getattr(activation, "__name__", "") == "linear"


def has_kernel(node: Node) -> bool:
    """Return whether a layer, or one of a nested model, has a weight that products are made of."""
    if node.body is not None:
        return any(map(has_kernel, node.body.walk()))
    return class_of(node.operation).work not in UNCOUNTED and any(
        len(weight.shape) > 1 for weight in getattr(node.operation, "weights", ())
    )


def operands_of(node: Node) -> Sequence[int]:
    """Return the places of a sum's operands that could leave it; (): it is no sum of tensors."""
    kind = type(node.operation).__name__ if is_keras(node.operation) else ""
    if kind == "Add" and len(node.inputs) > 1:
        return range(len(node.inputs))
    return (1,) if kind == "CustomScaleLayer" else ()  # the first plus the second, scaled


@dataclass(frozen=True, eq=False)
class Branch:
    """One operand of a sum with the calls that nothing else needs.

    Attributes:
        merge: The sum.
        place: Of the operand among `merge.inputs`.
        nodes: The calls, in the order of the program.
        begins: The tensors that they take from elsewhere, as bits.
        sources: These and all that they come of.
        straight: What the operand comes of without a nonlinearity, itself among it.
        macs: What the calls cost.
    """

    merge: Node
    place: int
    nodes: tuple[Node, ...]
    begins: int
    sources: int
    straight: int
    macs: float

    def passes_by(self, other: Branch) -> bool:
        """Return whether this operand is a way past another one of the same sum."""
        if self.straight & other.sources:
            return True
        return bool(self.begins & other.begins) and not other.straight & self.sources


class Flow:
    """Dependencies between the tensors of one program.

    Args:
        program: The recorded model, or a nested one.
        macs: Of each call, by id; a nested model's are those of the calls inside.
    """

    def __init__(self, program: Program, macs: dict[int, float]) -> None:
        self._macs = macs
        self._graph = Readers(program.nodes, program.outputs)
        self._place = {id(node): place for place, node in enumerate(program.nodes)}
        self._bit: dict[int, int] = {}
        self._comes_of: dict[int, int] = {}  # tensor -> itself and all that it depends on
        self._straight: dict[int, int] = {}  # those without a nonlinearity between
        for tensor in program.inputs:
            self._note(tensor, 0, 0)
        for node in program.nodes:
            linear, sources, straight = is_linear(node), 0, 0
            for tensor in node.inputs:
                sources |= self._comes_of[id(tensor)]
                straight |= self._straight[id(tensor)] if linear else 0
            for tensor in node.outputs:
                self._note(tensor, sources, straight)

    def _note(self, tensor: Any, sources: int, straight: int) -> None:
        bit = self._bit[id(tensor)] = 1 << len(self._bit)
        self._comes_of[id(tensor)] = bit | sources
        self._straight[id(tensor)] = bit | straight

    def branch(self, merge: Node, place: int) -> Branch:
        """Return an operand with the calls whose every output leads to it alone."""
        found: dict[int, Node] = {}
        if self._graph.count_reads(merge.inputs[place]) == 1:
            uses: Counter[int] = Counter()
            open_ends = [merge.inputs[place]]
            while open_ends:
                maker = self._graph.maker.get(id(open_ends.pop()))
                if maker is None:
                    continue
                uses[id(maker)] += 1
                if uses[id(maker)] == sum(map(self._graph.count_reads, maker.outputs)):
                    found[id(maker)] = maker
                    open_ends.extend(maker.inputs)
        nodes = tuple(sorted(found.values(), key=lambda node: self._place[id(node)]))
        made = {id(tensor) for node in nodes for tensor in node.outputs}
        begins = sources = 0
        for tensor in (tensor for node in nodes for tensor in node.inputs):
            if id(tensor) not in made:
                begins |= self._bit[id(tensor)]
                sources |= self._comes_of[id(tensor)]
        return Branch(
            merge,
            place,
            nodes,
            begins,
            sources,
            self._straight[id(merge.inputs[place])],
            sum(self._macs.get(id(node), 0.0) for node in nodes),
        )


def judged(
    flow: Flow, merge: Node, why_not: Callable[[Branch], str]
) -> Iterator[tuple[Branch, str]]:
    """Yield the branches of a sum that have kernels, each with the reason to keep it, or "".

    All that may leave may leave together: a side that passes by them stays.

    Args:
        flow: Of the sum's program.
        merge: The sum.
        why_not: Says of a branch what else holds it.
    """
    places = operands_of(merge)
    branches = [flow.branch(merge, place) for place in range(len(merge.inputs))]
    reasons: dict[int, str] = {}
    able = []
    for branch in branches:
        if not any(map(has_kernel, branch.nodes)):
            continue
        able.append(branch)
        if branch.place not in places:
            reasons[branch.place] = UNSCALED
        elif not any(_whole(merge, other) for other in branches if other is not branch):
            reasons[branch.place] = SHAPE
        elif _unmasks(merge, branch.place):
            reasons[branch.place] = MASK
        elif reason := why_not(branch):
            reasons[branch.place] = reason
    leaving = [branch for branch in able if branch.place not in reasons]
    staying = [branch for branch in branches if branch not in leaving]
    while True:
        held = [
            branch
            for branch in leaving
            if not any(_whole(merge, other) and other.passes_by(branch) for other in staying)
        ]
        if not held:
            break
        shortcuts = [
            branch
            for branch in held
            if any(branch.straight & other.sources for other in able if other is not branch)
        ]
        stays = max(shortcuts or held, key=lambda branch: branch.macs)
        leaving.remove(stays)
        staying.append(stays)
        reasons[stays.place] = SHORTCUT if shortcuts else ONE_STAYS
    for branch in able:
        reason = reasons.get(branch.place, "")
        alone = not leaving and reason in (SHORTCUT, ONE_STAYS)
        yield branch, NOT_RESIDUAL if alone else reason


def _whole(merge: Node, branch: Branch) -> bool:
    """Return whether an operand has the shape and the type of the sum."""
    own, result = merge.inputs[branch.place], merge.outputs[0]
    return (tuple(own.shape), own.dtype) == (tuple(result.shape), result.dtype)


def _unmasks(merge: Node, place: int) -> bool:
    others = [tensor for index, tensor in enumerate(merge.inputs) if index != place]
    masked = any(mask_of(tensor) is not None for tensor in others)
    return masked and mask_of(merge.outputs[0]) is None
