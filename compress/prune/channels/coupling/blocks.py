"""Blocks: residual branches that can be removed as a whole (depth pruning).

Exact as for channels: a model without a block equals the original with the block's operand of its
sum set to zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compress.model.program import Node, Program
from compress.prune.channels.coupling.branches import (
    NO_KERNEL,
    Branch,
    Flow,
    judged,
    operands_of,
)
from compress.prune.channels.coupling.slots import CouplingGraph, InnerModel

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling

Needs = frozenset[frozenset[int]]
"""Sets of blocks (their indices), of which one must be present as a whole; none holds another."""
ALWAYS: Needs = frozenset([frozenset()])
"""Whatever leaves, it stays."""


@dataclass(frozen=True, eq=False)
class Block:
    """A residual branch that can be removed.

    Attributes:
        index: Place in `blocks_of`.
        name: Of the sum that the branch ends in, "nested/add" in a nested model; where several
            of its operands can leave, with the operand's place behind it: "add:1".
        merge: The sum: keras.layers.Add, a raw addition, or the scaled one of InceptionResNetV2.
        operand: Place of the branch among `merge.inputs`.
        nodes: The calls that are in this branch alone, in the order of the model; a nested
            model is one.
        layers: Names of the layers with weights among them, nested ones too.
        inner: Indices of the blocks inside, which leave with it.
    """

    index: int
    name: str
    merge: Node
    operand: int
    nodes: tuple[Node, ...]
    layers: tuple[str, ...]
    inner: tuple[int, ...] = ()


@dataclass(frozen=True)
class HeldBlock:
    """A sum with a branch that cannot be removed.

    Attributes:
        name: Of the sum, likewise.
        layers: Names of the branch's layers with weights; () where it has none to itself.
        reason: Why it stays.
    """

    name: str
    layers: tuple[str, ...]
    reason: str


class Depth:
    """The blocks of a model, with the calls and weights that depend on them.

    Args:
        program: The recorded model.
        graph: Filled by the rules.

    Attributes:
        blocks: In the order of the model: inner ones before those that they are in. Any of them
            can leave together.
        held: Sums and branches that stay, with the reason, in the order of the model.
    """

    def __init__(self, program: Program, graph: CouplingGraph) -> None:
        finder = _Finder(program, graph)
        self.blocks = finder.blocks()
        self.held = tuple(finder.held)
        operands = {(id(block.merge), block.operand): block.index for block in self.blocks}
        self._calls: dict[int, Needs] = {}
        for own in finder.programs:
            self._calls |= needs_of_calls(own, operands)
        self._weights = needs_of_weights(program, self._calls)
        self._operands = operands

    def needs(self, calls: Sequence[Node]) -> Needs:
        """Return the needs of a call, given with the nested models around it, outer ones first."""
        found = ALWAYS
        for node in calls:
            found = both(found, self._calls.get(id(node), ALWAYS))
        return found

    def needs_of(self, weight: Any) -> Needs:
        """Return the needs of a weight."""
        return self._weights.get(id(weight), ALWAYS)

    def stays(self, node: Node, dropped: Collection[int]) -> bool:
        """Return whether a call of the program, or of a nested one that stays, is still made."""
        return met(self._calls.get(id(node), ALWAYS), dropped)

    def staying(self, node: Node, dropped: Collection[int]) -> list[int]:
        """Return the places of the inputs of a call that do not leave."""
        return [
            at
            for at in range(len(node.inputs))
            if self._operands.get((id(node), at)) not in dropped
        ]


def blocks_of(coupling: Coupling) -> tuple[Block, ...]:
    """Return the blocks of a model in its order.

    An operand of a sum (keras.layers.Add, keras.ops.add, `x + y`) is a block where layers with
    kernels lead to it alone, whose weights nothing else uses, and where another operand of the
    sum's own shape stays that passes by it: that leads back, without an activation between, to
    something that the branch comes of (an identity, a projection), or begins with the same
    tensor. Any blocks can leave together.
    """
    return coupling.depth.blocks


class _Finder:
    """Search for blocks, sum by sum in the order of the model, nested models in their place.

    Attributes:
        programs: Of the model and of those nested in it.
        held: See `Depth`.
    """

    def __init__(self, program: Program, graph: CouplingGraph, prefix: str = "") -> None:
        self._graph = graph
        self._macs: dict[int, float] = {}
        for term in graph.terms:
            macs = term.coefficient
            for ids in term.factors:
                macs *= len(ids)
            for node in term.calls:
                self._macs[id(node)] = self._macs.get(id(node), 0.0) + macs
        self.programs: list[Program] = []
        self.held: list[HeldBlock] = []
        self._names: dict[int, str] = {}
        self._users: dict[int, set[int]] = {}  # weight, or nested program -> calls
        self._list(program, prefix)
        self._found = [
            branch for flow, merge in self._sums(program) for branch in self._leaving(flow, merge)
        ]
        self._inside_layers()

    def blocks(self) -> tuple[Block, ...]:
        """Return the branches that may leave as blocks."""
        sums = Counter(id(branch.merge) for branch in self._found)
        blocks: list[Block] = []
        for index, branch in enumerate(self._found):
            name = self._names[id(branch.merge)]
            calls = {id(node) for node in _all_calls(branch.nodes)}
            blocks.append(
                Block(
                    index,
                    f"{name}:{branch.place}" if sums[id(branch.merge)] > 1 else name,
                    branch.merge,
                    branch.place,
                    branch.nodes,
                    self._layers(branch),
                    tuple(own.index for own in blocks if id(own.merge) in calls),
                )
            )
        return tuple(blocks)

    def _list(self, program: Program, prefix: str) -> None:
        """Note programs, the names of calls, and the users of weights and nested programs."""
        if program in self.programs:
            return
        self.programs.append(program)
        for node in program.nodes:
            self._names[id(node)] = f"{prefix}{node.name}"
            for held in _held_by(node):
                self._users.setdefault(id(held), set()).add(id(node))
            if node.body is not None:
                self._list(node.body, f"{prefix}{node.name}/")

    def _sums(self, program: Program) -> Iterator[tuple[Flow, Node]]:
        """Yield the sums, each with the flow of its program; those of a shared model once."""
        seen: set[int] = set()

        def visit(own: Program) -> Iterator[tuple[Flow, Node]]:
            seen.add(id(own))
            flow = Flow(own, self._macs)
            for node in own.nodes:
                if node.body is not None and id(node.body) not in seen:
                    yield from visit(node.body)
                elif operands_of(node):
                    yield flow, node

        return visit(program)

    def _leaving(self, flow: Flow, merge: Node) -> Iterator[Branch]:
        """Yield the branches of a sum that may leave; notes those that stay."""
        name, none = self._names[id(merge)], True
        for branch, reason in judged(flow, merge, self._why_not):
            none = False
            if reason:
                self.held.append(HeldBlock(name, self._layers(branch), reason))
            else:
                yield branch
        if none:
            self.held.append(HeldBlock(name, (), NO_KERNEL))

    def _why_not(self, branch: Branch) -> str:
        calls = {id(node) for node in _all_calls(branch.nodes)}
        for node in _all_calls(branch.nodes):
            if any(not self._users[id(held)] <= calls for held in _held_by(node)):
                name = self._names[id(node)]
                return f"layer '{name}' is in it, and its weights are used outside of it too"
        slots = self._graph.tensors
        ends, result = branch.merge.inputs[branch.place], branch.merge.outputs[0]
        own, total = slots.get(id(ends)), slots.get(id(result))
        if own is not None and total is not None and own.value and total.value is not None:
            # the rules followed what removed channels of the sum hold: the branch is a part of it
            return f"its removed channels would hold {own.value:g}, and what follows relies on it"
        return ""

    def _inside_layers(self) -> None:
        """Note the blocks of models that layers hold: they lie in these layers' configs."""
        names = {
            id(node.operation): self._names[id(node)]
            for program in self.programs
            for node in program.nodes
        }
        for operation, edits in self._graph.config_edits.items():
            for _, change in edits:
                if not isinstance(change, InnerModel) or operation not in names:
                    continue
                name = names[operation]
                inside = _Finder(change.program, self._graph, f"{name}/")
                self.held += inside.held
                reason = f"it is in a model that layer '{name}' holds"
                self.held += [
                    HeldBlock(block.name, block.layers, reason) for block in inside.blocks()
                ]

    def _layers(self, branch: Branch) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                self._names[id(node)]
                for node in _all_calls(branch.nodes)
                if node.body is None and _held_by(node)
            )
        )


def _all_calls(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield calls, and behind a nested model those inside."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from _all_calls(node.body.nodes)


def _held_by(node: Node) -> Sequence[Any]:
    """Return a nested model's program, or a layer's weights: other calls may use them too."""
    return [node.body] if node.body is not None else getattr(node.operation, "weights", ())


def either(needs: Iterable[Needs]) -> Needs:
    """Return needs that are met where those of one of several are."""
    sets = frozenset().union(*needs)
    return frozenset(one for one in sets if not any(other < one for other in sets))


def both(first: Needs, second: Needs) -> Needs:
    """Return needs that are met where both are."""
    if first == ALWAYS:
        return second
    return either([frozenset(one | two for one in first for two in second)])


def met(needs: Needs, dropped: Collection[int]) -> bool:
    """Return whether needs are met without the dropped blocks."""
    return any(one.isdisjoint(dropped) for one in needs)


def needs_of_calls(program: Program, operands: Mapping[tuple[int, int], int]) -> dict[int, Needs]:
    """Return the blocks that each call of a program needs, by id; nested models apart.

    A call is made as long as something that is left takes its results. So its needs are an "or" of
    "and"s: a layer in a block needs the block, one in a block within a block needs both, and a
    normalization that two blocks share needs either.

    Args:
        program: The recorded model, or a nested one.
        operands: The block that is an operand: (id of the call, place among its inputs) ->
            index.
    """
    reached: dict[int, Needs] = dict.fromkeys(map(id, program.outputs), ALWAYS)
    found: dict[int, Needs] = {}
    for node in reversed(program.nodes):
        taken = [reached[id(tensor)] for tensor in node.outputs if id(tensor) in reached]
        # what nobody takes was there before; it stays
        own = found[id(node)] = either(taken) if taken else ALWAYS
        for place, tensor in enumerate(node.inputs):
            block = operands.get((id(node), place))
            edge = own if block is None else both(frozenset([frozenset([block])]), own)
            reached[id(tensor)] = either([reached.get(id(tensor), frozenset()), edge])
    return found


def needs_of_weights(program: Program, calls: Mapping[int, Needs]) -> dict[int, Needs]:
    """Return the blocks that each weight needs, by id: those of one of its calls.

    Args:
        program: The recorded model.
        calls: What calls need, nested models' among them.
    """
    found: dict[int, Needs] = {}

    def visit(nodes: Iterable[Node], outer: Needs) -> None:
        for node in nodes:
            own = both(outer, calls.get(id(node), ALWAYS))
            if node.body is not None:
                visit(node.body.nodes, own)
                continue
            weights: Iterable[Any] = getattr(node.operation, "weights", ())
            for weight in weights:
                found[id(weight)] = either([found.get(id(weight), frozenset()), own])

    visit(program.nodes, ALWAYS)
    return found
