"""Costs of a graph of operations, per operator.

Operators in a loop count once per round if the graph determines the number of rounds: a counter up
to a limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import CostTable
from compress.measure.layer_costs import Analysis, LayerCost, compute_peak_bytes


def count_graph(graph: Graph, table: CostTable) -> Analysis:
    """Return the costs of one inference at the sizes in the graph.

    Constants count as parameters of the first operator that reads them. Costs in a loop are
    multiplied by the number of rounds; if that is unknown they are not counted.

    Args:
        graph: A graph with its sizes.
        table: Cost table of the graph's format.
    """
    counter = _Counter(table)
    peak = counter.count_operators(graph, _Scope())
    return Analysis(tuple(counter.rows), peak)


@dataclass(frozen=True)
class _Scope:
    """Position of a graph inside other graphs.

    Attributes:
        prefix: Prefix of the names of its operators.
        times: Number of times that it runs.
        reason: Why its MACs are not counted; empty if they are.
    """

    prefix: str = ""
    times: int = 1
    reason: str = ""

    def qualify_name(self, name: str) -> str:
        """Return a name with the prefix, unless the converter already added it."""
        return name if name.startswith(self.prefix) else f"{self.prefix}{name}"


class _Counter:
    def __init__(self, table: CostTable) -> None:
        self.rows: list[LayerCost] = []
        self._table = table
        self._origins: dict[int, Tensor] = {}  # tensor id -> the constant that it is a copy of
        self._constant_ids: set[int] = set()  # ids of tensors that depend on constants only
        self._counted_ids: set[int] = set()  # ids of constants that are already counted

    def count_operators(self, graph: Graph, scope: _Scope) -> int | None:
        """Count the operators of a graph and return its peak bytes; None if unknown."""
        inner_peaks: dict[int, int | None] = {}
        for operator in graph.operators:
            for tensor in operator.present_inputs:
                if tensor.values is not None:
                    self._origins.setdefault(id(tensor), tensor)
                    self._constant_ids.add(id(tensor))
            if operator.bodies:
                inner_peaks[id(operator)] = self._count_bodies(operator, scope)
            elif operator.inputs and all(
                id(item) in self._constant_ids for item in operator.present_inputs
            ):
                # its inputs are constants: it runs once, not in each inference
                self._constant_ids.update(map(id, operator.outputs))
                self._fold_constant(operator, scope)
            elif operator.kind not in self._table.sources:
                self.rows.append(self._count_operator(operator, scope))
        calls = [
            (
                {id(t): t.size_bytes for t in self._list_activations(item)},
                inner_peaks.get(id(item), 0),
            )
            for item in graph.operators
        ]
        return compute_peak_bytes(calls, map(id, graph.outputs))

    def _fold_constant(self, operator: Operator, scope: _Scope) -> None:
        """Alias the outputs of a copied constant to it, or add a row of parameters without MACs."""
        origin = (
            self._origins.get(id(operator.present_inputs[0])) if operator.present_inputs else None
        )
        if operator.kind in self._table.passthrough_kinds and origin is not None:
            self._origins.update((id(output), origin) for output in operator.outputs)
            return
        row = self._count_operator(operator, scope)
        if row.params:
            self.rows.append(replace(row, macs=0, reason="", sparse_macs=0, other_ops=0))

    # -- nested graphs ----------------------------------------------------------------------

    def _count_bodies(self, operator: Operator, scope: _Scope) -> int | None:
        """Count the graphs that an operator runs and return their largest peak bytes."""
        kind, inputs = operator.kind, operator.inputs
        times, reason = scope.times, scope.reason
        invariant: Sequence[bool] | None = None
        if kind in self._table.loops:
            (body,) = operator.bodies
            num_rounds = count_rounds(operator)
            if num_rounds is None:
                reason = "in a loop: how many rounds it takes is not in the graph"
            else:
                times *= num_rounds
            invariant = [is_loop_invariant(body, number) for number in range(len(body.inputs))]
        elif kind in self._table.branches:
            reason = "in a branch: which one runs depends on values"
            inputs = inputs[1:]  # the first input selects the branch
        inner_scope = _Scope(f"{scope.qualify_name(operator.name)}/", times, reason)
        peaks = []
        for body in operator.bodies:
            for number, (outer, body_input) in enumerate(zip(inputs, body.inputs, strict=False)):
                if outer is not None and (invariant is None or invariant[number]):
                    self._bind_input(outer, body_input)
            peaks.append(self.count_operators(body, inner_scope))
        known_peaks = [peak for peak in peaks if peak is not None]
        return max(known_peaks) if len(known_peaks) == len(peaks) else None

    def _bind_input(self, outer: Tensor, inner: Tensor) -> None:
        if id(outer) in self._origins:
            self._origins[id(inner)] = self._origins[id(outer)]
        if id(outer) in self._constant_ids:
            self._constant_ids.add(id(inner))

    # -- one operator -----------------------------------------------------------------------

    def _count_operator(self, operator: Operator, scope: _Scope) -> LayerCost:
        """Return an operator's costs times the rounds of its loop; parameters count only once."""
        constants = [
            self._origins[id(item)] for item in operator.present_inputs if id(item) in self._origins
        ]
        weights = list({id(item): item for item in constants if item.is_weight}.values())
        new_weights = [weight for weight in weights if id(weight) not in self._counted_ids]
        self._counted_ids.update(map(id, new_weights))
        macs, reason = self._table.count_macs(operator)
        if macs and scope.reason:
            macs, reason = None, scope.reason
        other_ops = None if scope.reason else self._table.count_other_ops(operator)
        sizes = [tensor.size_bytes for tensor in (*self._list_activations(operator), *weights)]
        bytes_moved = None if None in sizes else sum(size or 0 for size in sizes)
        output_shape = operator.outputs[0].shape if operator.outputs else ()
        return LayerCost(
            scope.qualify_name(operator.name),
            operator.kind,
            tuple(output_shape[1:]) if output_shape else (),
            None if macs is None else macs * scope.times,
            sum(weight.elements for weight in new_weights),
            sum(weight.nonzero for weight in new_weights),
            reason,
            None if macs is None else round(macs * scope.times * _compute_density(weights)),
            None if other_ops is None else other_ops * scope.times,
            None if bytes_moved is None or scope.reason else bytes_moved * scope.times,
        )

    def _list_activations(self, operator: Operator) -> list[Tensor]:
        tensors = (*operator.present_inputs, *operator.outputs)
        return [tensor for tensor in tensors if id(tensor) not in self._constant_ids]


def _compute_density(weights: Sequence[Tensor]) -> float:
    """Return the share of non-zero weights of a kernel; 1 if there is not exactly one kernel."""
    kernels = [weight for weight in weights if len(weight.shape or ()) > 1]
    return kernels[0].nonzero / max(1, kernels[0].elements) if len(kernels) == 1 else 1.0


def count_rounds(loop: Operator) -> int | None:
    """Return the number of rounds of a loop; None if it depends on values.

    Supported conditions are "counter < limit" and "counter <= limit", also several joined by "and",
    with constant initial values, steps and limits.

    Args:
        loop: An operator with a condition and a body.
    """
    if loop.condition is None or len(loop.bodies) != 1 or len(loop.condition.outputs) != 1:
        return None
    return _Loop(loop, loop.condition, loop.bodies[0]).count_rounds(loop.condition.outputs[0])


def is_loop_invariant(body: Graph, index: int) -> bool:
    """Return whether a loop's body passes an input on unchanged.

    Args:
        body: Body of the loop.
        index: Index of the input, and of the output of the same variable.
    """
    return _find_source(body.outputs[index], body.find_producers()) is body.inputs[index]


def _find_source(tensor: Tensor, producers: dict[int, Operator]) -> Tensor:
    """Return the tensor before copies and casts."""
    passthrough_kinds = ("identity", "dequantize", "cast")
    while (producer := producers.get(id(tensor))) is not None and _normalize_kind(
        producer
    ) in passthrough_kinds:
        (tensor,) = producer.present_inputs[:1]
    return tensor


def _normalize_kind(operator: Operator) -> str:
    """Return the same spelling for LOGICAL_AND and LogicalAnd."""
    return operator.kind.replace("_", "").lower()


class _Loop:
    def __init__(self, loop: Operator, condition: Graph, body: Graph) -> None:
        self._inputs, self._body = loop.inputs, body
        self._condition = condition
        self._producers, self._body_producers = condition.find_producers(), body.find_producers()

    def count_rounds(self, tensor: Tensor) -> int | None:
        """Return the number of rounds that a condition allows, or None if it is unknown."""
        producer = self._producers.get(id(_find_source(tensor, self._producers)))
        kind = "" if producer is None else _normalize_kind(producer)
        inputs = [] if producer is None else producer.present_inputs
        if kind == "logicaland":
            parts = [self.count_rounds(part) for part in inputs]
            return None if None in parts else min(part for part in parts if part is not None)
        if kind not in ("less", "lessequal"):
            return None
        counter, limit = inputs
        index, last = self._find_input_index(counter), self._find_limit(limit)
        if index is None or last is None:
            return None
        first, step = self._find_initial_value(index), self._find_step(index)
        if first is None or step is None or step <= 0:
            return None
        count = (last - first) / step
        return max(0, math.ceil(count) if kind == "less" else math.floor(count) + 1)

    def _find_input_index(self, tensor: Tensor) -> int | None:
        source = _find_source(tensor, self._producers)
        inputs = enumerate(self._condition.inputs)
        return next((index for index, candidate in inputs if candidate is source), None)

    def _find_initial_value(self, index: int) -> float | None:
        tensor = self._inputs[index]
        return None if tensor is None else tensor.scalar

    def _find_limit(self, tensor: Tensor) -> float | None:
        """Return the limit of a condition: a constant, or an input that no round changes."""
        source = _find_source(tensor, self._producers)
        if source.scalar is not None:
            return source.scalar
        index = self._find_input_index(source)
        if index is None or not is_loop_invariant(self._body, index):
            return None
        return self._find_initial_value(index)

    def _find_step(self, index: int) -> float | None:
        """Return the constant step of a counter; None if it has none."""
        producer = self._body_producers.get(
            id(_find_source(self._body.outputs[index], self._body_producers))
        )
        if (
            producer is None
            or _normalize_kind(producer) not in ("add", "addv2")
            or len(producer.present_inputs) != 2
        ):
            return None
        first, second = (
            _find_source(tensor, self._body_producers) for tensor in producer.present_inputs
        )
        if second is self._body.inputs[index]:
            first, second = second, first
        return second.scalar if first is self._body.inputs[index] else None
