"""Counts a graph of operations, whatever file it comes from: a row an operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from compress.measure.graph_files.loops import is_carried, rounds
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import Table
from compress.measure.layer_costs import Analysis, LayerCost

LOOP = "in a loop: how many rounds it takes is not in the graph"
BRANCH = "in a branch: which one runs depends on values"


def count_graph(graph: Graph, table: Table) -> Analysis:
    """Counts the costs of one inference at the sizes that a graph has.

    Constants are counted as parameters at the operator that reads them first. What loops hold
    is multiplied by their rounds; where these are not known it is not counted.

    Args:
        graph: With the sizes at which it runs.
        table: Of its format.
    """
    counter = _Counter(table)
    peak = counter.run(graph, _Place())
    return Analysis(tuple(counter.rows), peak)


@dataclass(frozen=True)
class _Place:
    """Where a graph stands.

    Attributes:
        prefix: Of the names of its operators.
        times: How often it runs.
        reason: Why what it multiplies is not counted; empty: it is.
    """

    prefix: str = ""
    times: int = 1
    reason: str = ""

    def named(self, name: str) -> str:
        """Returns a name with where it stands; what a converter wrote may say that itself."""
        return name if name.startswith(self.prefix) else f"{self.prefix}{name}"


class _Counter:
    def __init__(self, table: Table) -> None:
        self.rows: list[LayerCost] = []
        self._table = table
        self._origins: dict[int, Tensor] = {}  # id of a tensor -> the constant that it is
        self._settled: set[int] = set()  # ids of what constants alone decide
        self._told: set[int] = set()  # ids of constants that are counted

    def run(self, graph: Graph, place: _Place) -> int | None:
        """Counts a graph's operators and returns its peak of bytes."""
        inner: dict[int, int | None] = {}
        for operator in graph.operators:
            self._note_constants(operator)
            if operator.bodies:
                inner[id(operator)] = self._inside(operator, place)
            elif self._is_settled(operator):
                self._settled.update(map(id, operator.outputs))
                self._settle(operator, place)
            elif operator.kind not in self._table.sources:
                self.rows.append(self._row(operator, place))
        return self._peak(graph, inner)

    def _note_constants(self, operator: Operator) -> None:
        for tensor in operator.given:
            if tensor.values is not None:
                self._origins.setdefault(id(tensor), tensor)
                self._settled.add(id(tensor))

    def _is_settled(self, operator: Operator) -> bool:
        """Tells whether constants alone decide what it makes: that is done once, not each time."""
        return bool(operator.inputs) and all(id(item) in self._settled for item in operator.given)

    def _settle(self, operator: Operator, place: _Place) -> None:
        first = operator.given[0] if operator.given else None
        origin = self._origins.get(id(first)) if first is not None else None
        if operator.kind in self._table.moves and origin is not None:
            self._origins.update((id(made), origin) for made in operator.outputs)
            return
        row = self._row(operator, place)
        if row.params:
            self.rows.append(replace(row, macs=0, reason="", sparse_macs=0, other_ops=0))

    # -- graphs inside ----------------------------------------------------------------------

    def _inside(self, operator: Operator, place: _Place) -> int | None:
        """Counts what an operator runs, and returns the largest peak."""
        kind, prefix = operator.kind, f"{place.named(operator.name)}/"
        times, reason = place.times, place.reason
        carried: Sequence[bool] | None = None
        if kind in self._table.loops:
            (body,) = operator.bodies
            found = rounds(operator)
            times, reason = (times, LOOP) if found is None else (times * found, reason)
            carried = [is_carried(body, number) for number in range(len(body.inputs))]
        elif kind in self._table.branches:
            reason = BRANCH
        skipped = 1 if kind in self._table.branches else 0  # what chooses among them
        peaks = []
        for body in operator.bodies:
            given = operator.inputs[skipped:]
            for number, (outer, own) in enumerate(zip(given, body.inputs, strict=False)):
                if outer is not None and (carried is None or carried[number]):
                    self._hand_in(outer, own)
            peaks.append(self.run(body, _Place(prefix, times, reason)))
        known = [peak for peak in peaks if peak is not None]
        return max(known) if len(known) == len(peaks) else None

    def _hand_in(self, outer: Tensor, own: Tensor) -> None:
        if id(outer) in self._origins:
            self._origins[id(own)] = self._origins[id(outer)]
        if id(outer) in self._settled:
            self._settled.add(id(own))

    # -- one operator -----------------------------------------------------------------------

    def _row(self, operator: Operator, place: _Place) -> LayerCost:
        weights = self._weights(operator)
        own = [weight for weight in weights if id(weight) not in self._told]
        self._told.update(map(id, own))
        macs, reason = self._table.macs(operator)
        if macs and place.reason:
            macs, reason = None, place.reason
        others = None if place.reason else self._table.others(operator)
        moved = _sum([*self._activations(operator), *weights])
        made = operator.outputs[0].shape if operator.outputs else ()
        return LayerCost(
            place.named(operator.name),
            operator.kind,
            tuple(made[1:]) if made else (),
            None if macs is None else macs * place.times,
            sum(weight.elements for weight in own),
            sum(weight.nonzero for weight in own),
            reason,
            None if macs is None else round(macs * place.times * _density(weights)),
            None if others is None else others * place.times,
            None if moved is None or place.reason else moved * place.times,
        )

    def _weights(self, operator: Operator) -> list[Tensor]:
        found = (self._origins.get(id(tensor)) for tensor in operator.given)
        return list(
            {id(item): item for item in found if item is not None and item.is_weight}.values()
        )

    def _activations(self, operator: Operator) -> list[Tensor]:
        tensors = (*operator.given, *operator.outputs)
        return [tensor for tensor in tensors if id(tensor) not in self._settled]

    def _peak(self, graph: Graph, inner: dict[int, int | None]) -> int | None:
        """Returns the most bytes alive at one time, each tensor from its making to its last use."""
        last = {id(t): place for place, item in enumerate(graph.operators) for t in item.given}
        last |= {id(tensor): len(graph.operators) for tensor in graph.outputs}
        alive: dict[int, int] = {}
        peak = 0
        for place, operator in enumerate(graph.operators):
            for tensor in self._activations(operator):
                if tensor.bytes is None:
                    return None
                alive[id(tensor)] = tensor.bytes
            more = inner.get(id(operator), 0)
            if more is None:
                return None
            peak = max(peak, sum(alive.values()) + more)
            for key in [key for key in alive if last.get(key, place) <= place]:
                del alive[key]
        return peak


def _sum(tensors: Iterable[Tensor]) -> int | None:
    sizes = [tensor.bytes for tensor in tensors]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _density(weights: Sequence[Tensor]) -> float:
    """Returns the share of a kernel that is not zero; 1 where there is no kernel, or several."""
    kernels = [weight for weight in weights if len(weight.shape or ()) > 1]
    if len(kernels) != 1:
        return 1.0
    return kernels[0].nonzero / max(1, kernels[0].elements)
