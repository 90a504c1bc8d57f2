"""Blocks: residual branches that can be removed as a whole (depth pruning).

Removal is exact, as for channels: a model without a block equals the original with the block's
operand of its sum set to zero.
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
    Dataflow,
    check_branches,
    find_removable_operands,
)
from compress.prune.channels.coupling.slots import CouplingGraph, InnerModel

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling

Needs = frozenset[frozenset[int]]
"""Alternative sets of block indices: all blocks of one set must be present; sets are minimal."""
ALWAYS: Needs = frozenset([frozenset()])
"""Needs that are met without any block."""


@dataclass(frozen=True, eq=False)
class Block:
    """A residual branch that can be removed.

    Attributes:
        index: Index in `list_blocks`.
        name: Name of the sum that the branch ends in, "nested/add" in a nested model. If several of
            its operands can be removed, the operand index is appended: "add:1".
        merge: The sum: keras.layers.Add, a raw addition, or the scaled one of InceptionResNetV2.
        operand: Index of the branch in `merge.inputs`.
        nodes: Calls in this branch only, in the order of the model; a nested model is one call.
        layers: Names of the layers with weights among them, nested ones included.
        inner: Indices of the nested blocks, which are removed with it.
    """

    index: int
    name: str
    merge: Node
    operand: int
    nodes: tuple[Node, ...]
    layers: tuple[str, ...]
    inner: tuple[int, ...] = ()


@dataclass(frozen=True)
class ProtectedBlock:
    """A sum with a branch that cannot be removed.

    Attributes:
        name: Name of the sum, as in `Block`.
        layers: Names of the branch's layers with weights; () if it has none.
        reason: Reason why it cannot be removed.
    """

    name: str
    layers: tuple[str, ...]
    reason: str


class BlockDependencies:
    """The blocks of a model, with the calls and weights that depend on them.

    Args:
        program: The recorded model.
        graph: Coupling graph filled by the rules.

    Attributes:
        blocks: Blocks in the order of the model, inner ones before outer ones. They can be removed
            in any combination.
        protected: Sums and branches that cannot be removed, with reasons, in the order of the
            model.
    """

    def __init__(self, program: Program, graph: CouplingGraph) -> None:
        finder = _BlockFinder(program, graph)
        self.blocks = finder.build_blocks()
        self.protected = tuple(finder.protected)
        operands = {(id(block.merge), block.operand): block.index for block in self.blocks}
        self._calls: dict[int, Needs] = {}
        for subprogram in finder.programs:
            self._calls |= compute_call_needs(subprogram, operands)
        self._weights = compute_weight_needs(program, self._calls)
        self._operands = operands

    def get_call_needs(self, call_path: Sequence[Node]) -> Needs:
        """Return the blocks that a call needs, with those of the nested models around it.

        Args:
            call_path: The call, after the calls of the nested models around it, outer ones first.
        """
        needs = ALWAYS
        for node in call_path:
            needs = combine_all(needs, self._calls.get(id(node), ALWAYS))
        return needs

    def get_weight_needs(self, weight: Any) -> Needs:
        """Return the needs of a weight."""
        return self._weights.get(id(weight), ALWAYS)

    def is_kept(self, node: Node, removed_indices: Collection[int]) -> bool:
        """Return whether a call of the program, or of a kept nested program, is kept."""
        return is_met(self._calls.get(id(node), ALWAYS), removed_indices)

    def list_kept_inputs(self, node: Node, removed_indices: Collection[int]) -> list[int]:
        """Return the indices of the kept inputs of a call."""
        return [
            index
            for index in range(len(node.inputs))
            if self._operands.get((id(node), index)) not in removed_indices
        ]


def list_blocks(coupling: Coupling) -> tuple[Block, ...]:
    """Return the blocks of a model, in the order of the model.

    An operand of a sum (keras.layers.Add, keras.ops.add, `x + y`) is a block on two conditions.
    First, it has layers with kernels that contribute to it only, and nothing else uses their
    weights. Second, another operand of the sum's shape is kept and bypasses it: it is computed
    without an activation from a tensor that the branch depends on (an identity or a projection), or
    starts from the same tensor. Blocks can be removed in any combination.
    """
    return coupling.block_dependencies.blocks


class _BlockFinder:
    """Search for blocks, sum by sum in the order of the model, with nested models in place.

    Args:
        program: The recorded model.
        graph: Coupling graph filled by the rules.
        prefix: Prefix of the names of calls.

    Attributes:
        programs: Programs of the model and of its nested models.
        protected: See `BlockDependencies`.
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
        self.protected: list[ProtectedBlock] = []
        self._names: dict[int, str] = {}
        self._users: dict[int, set[int]] = {}  # weight, or nested program -> calls
        self._register_program(program, prefix)
        self._branches = [
            branch
            for flow, merge in self._iter_sums(program)
            for branch in self._iter_removable(flow, merge)
        ]
        self._add_inner_models()

    def build_blocks(self) -> tuple[Block, ...]:
        """Return the removable branches as blocks."""
        sums = Counter(id(branch.merge) for branch in self._branches)
        blocks: list[Block] = []
        for index, branch in enumerate(self._branches):
            name = self._names[id(branch.merge)]
            calls = {id(node) for node in _walk_calls(branch.nodes)}
            blocks.append(
                Block(
                    index,
                    f"{name}:{branch.operand}" if sums[id(branch.merge)] > 1 else name,
                    branch.merge,
                    branch.operand,
                    branch.nodes,
                    self._list_layers(branch),
                    tuple(inner.index for inner in blocks if id(inner.merge) in calls),
                )
            )
        return tuple(blocks)

    def _register_program(self, program: Program, prefix: str) -> None:
        """Record programs, the names of calls, and the users of weights and nested programs."""
        if program in self.programs:
            return
        self.programs.append(program)
        for node in program.nodes:
            self._names[id(node)] = f"{prefix}{node.name}"
            for resource in _list_resources(node):
                self._users.setdefault(id(resource), set()).add(id(node))
            if node.body is not None:
                self._register_program(node.body, f"{prefix}{node.name}/")

    def _iter_sums(self, program: Program) -> Iterator[tuple[Dataflow, Node]]:
        """Yield each sum with the dataflow of its program; those of a shared model once."""
        seen: set[int] = set()

        def visit(subprogram: Program) -> Iterator[tuple[Dataflow, Node]]:
            seen.add(id(subprogram))
            flow = Dataflow(subprogram, self._macs)
            for node in subprogram.nodes:
                if node.body is not None and id(node.body) not in seen:
                    yield from visit(node.body)
                elif find_removable_operands(node):
                    yield flow, node

        return visit(program)

    def _iter_removable(self, flow: Dataflow, merge: Node) -> Iterator[Branch]:
        """Yield the removable branches of a sum, and record the others."""
        name, has_no_kernel = self._names[id(merge)], True
        for branch, reason in check_branches(flow, merge, self._find_obstacle):
            has_no_kernel = False
            if reason:
                self.protected.append(ProtectedBlock(name, self._list_layers(branch), reason))
            else:
                yield branch
        if has_no_kernel:
            self.protected.append(ProtectedBlock(name, (), NO_KERNEL))

    def _find_obstacle(self, branch: Branch) -> str:
        calls = {id(node) for node in _walk_calls(branch.nodes)}
        for node in _walk_calls(branch.nodes):
            if any(not self._users[id(resource)] <= calls for resource in _list_resources(node)):
                name = self._names[id(node)]
                return f"layer '{name}' is in it, and its weights are used outside of it too"
        slots = self._graph.tensors
        operand_tensor, result = branch.merge.inputs[branch.operand], branch.merge.outputs[0]
        branch_slots, sum_slots = slots.get(id(operand_tensor)), slots.get(id(result))
        if (
            branch_slots is not None
            and sum_slots is not None
            and branch_slots.value
            and sum_slots.value is not None
        ):
            # the rules computed a nonzero value of the sum's removed entries from this branch
            return (
                f"its removed channels would hold {branch_slots.value:g}, and what follows relies "
                "on it"
            )
        return ""

    def _add_inner_models(self) -> None:
        """Record the blocks of models inside layers as protected: layers' configs contain them."""
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
                inside = _BlockFinder(change.program, self._graph, f"{name}/")
                self.protected += inside.protected
                reason = f"it is in a model that layer '{name}' holds"
                self.protected += [
                    ProtectedBlock(block.name, block.layers, reason)
                    for block in inside.build_blocks()
                ]

    def _list_layers(self, branch: Branch) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                self._names[id(node)]
                for node in _walk_calls(branch.nodes)
                if node.body is None and _list_resources(node)
            )
        )


def _walk_calls(nodes: Sequence[Node]) -> Iterator[Node]:
    """Yield calls, each nested model followed by the calls inside."""
    for node in nodes:
        yield node
        if node.body is not None:
            yield from _walk_calls(node.body.nodes)


def _list_resources(node: Node) -> Sequence[Any]:
    """Return a nested model's program, or a layer's weights: other calls may share them."""
    return [node.body] if node.body is not None else getattr(node.operation, "weights", ())


def combine_any(needs: Iterable[Needs]) -> Needs:
    """Return needs that are met if any of the given needs is met."""
    sets = frozenset().union(*needs)
    return frozenset(
        candidate for candidate in sets if not any(other < candidate for other in sets)
    )


def combine_all(first: Needs, second: Needs) -> Needs:
    """Return needs that are met if both are met."""
    if first == ALWAYS:
        return second
    return combine_any(
        [frozenset(first_set | second_set for first_set in first for second_set in second)]
    )


def is_met(needs: Needs, removed_indices: Collection[int]) -> bool:
    """Return whether needs are met without the removed blocks."""
    return any(needed.isdisjoint(removed_indices) for needed in needs)


def compute_call_needs(
    program: Program, operands: Mapping[tuple[int, int], int]
) -> dict[int, Needs]:
    """Return the blocks that each call of a program needs, by id, without those of nested models.

    A call is kept as long as a kept call reads its results. Its needs are therefore alternatives of
    sets: a layer in a block needs the block, a layer in a nested block needs both blocks, and a
    normalization shared by two blocks needs either.

    Args:
        program: The recorded model, or a nested one.
        operands: Index of the block that is an operand: (id of the call, input index) -> index.
    """
    reached: dict[int, Needs] = dict.fromkeys(map(id, program.outputs), ALWAYS)
    needs_by_call: dict[int, Needs] = {}
    for node in reversed(program.nodes):
        consumer_needs = [reached[id(tensor)] for tensor in node.outputs if id(tensor) in reached]
        # results that nothing reads do not depend on blocks
        call_needs = needs_by_call[id(node)] = (
            combine_any(consumer_needs) if consumer_needs else ALWAYS
        )
        for index, tensor in enumerate(node.inputs):
            block = operands.get((id(node), index))
            edge = (
                call_needs
                if block is None
                else combine_all(frozenset([frozenset([block])]), call_needs)
            )
            reached[id(tensor)] = combine_any([reached.get(id(tensor), frozenset()), edge])
    return needs_by_call


def compute_weight_needs(program: Program, calls: Mapping[int, Needs]) -> dict[int, Needs]:
    """Return the blocks that each weight needs, by id: those of any of its calls.

    Args:
        program: The recorded model.
        calls: Needs of calls, those of nested models included.
    """
    needs_by_weight: dict[int, Needs] = {}

    def visit(nodes: Iterable[Node], outer: Needs) -> None:
        for node in nodes:
            call_needs = combine_all(outer, calls.get(id(node), ALWAYS))
            if node.body is not None:
                visit(node.body.nodes, call_needs)
                continue
            weights: Iterable[Any] = getattr(node.operation, "weights", ())
            for weight in weights:
                needs_by_weight[id(weight)] = combine_any(
                    [needs_by_weight.get(id(weight), frozenset()), call_needs]
                )

    visit(program.nodes, ALWAYS)
    return needs_by_weight
