"""Costs of a graph of operations, a row an operator.

What a loop holds counts as often as it runs, where the graph says that: counters up to a limit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import Table
from compress.measure.layer_costs import Analysis, LayerCost, peak_bytes


def count_graph(graph: Graph, table: Table) -> Analysis:
    """Count the costs of one inference at the sizes that a graph has.

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
        """Return a name behind its scope, unless the converter's name holds the scope already."""
        return name if name.startswith(self.prefix) else f"{self.prefix}{name}"


class _Counter:
    def __init__(self, table: Table) -> None:
        self.rows: list[LayerCost] = []
        self._table = table
        self._origins: dict[int, Tensor] = {}  # id of a tensor -> the constant that it is
        self._settled: set[int] = set()  # ids of what constants alone decide
        self._told: set[int] = set()  # ids of constants that are counted

    def run(self, graph: Graph, place: _Place) -> int | None:
        """Count a graph's operators and return its peak of bytes."""
        inner: dict[int, int | None] = {}
        for operator in graph.operators:
            for tensor in operator.given:
                if tensor.values is not None:
                    self._origins.setdefault(id(tensor), tensor)
                    self._settled.add(id(tensor))
            if operator.bodies:
                inner[id(operator)] = self._inside(operator, place)
            elif operator.inputs and all(id(item) in self._settled for item in operator.given):
                # constants alone decide what it makes: that is done once, not each time
                self._settled.update(map(id, operator.outputs))
                self._settle(operator, place)
            elif operator.kind not in self._table.sources:
                self.rows.append(self._row(operator, place))
        calls = [
            ({id(t): t.bytes for t in self._activations(item)}, inner.get(id(item), 0))
            for item in graph.operators
        ]
        return peak_bytes(calls, map(id, graph.outputs))

    def _settle(self, operator: Operator, place: _Place) -> None:
        origin = self._origins.get(id(operator.given[0])) if operator.given else None
        if operator.kind in self._table.moves and origin is not None:
            self._origins.update((id(made), origin) for made in operator.outputs)
            return
        row = self._row(operator, place)
        if row.params:
            self.rows.append(replace(row, macs=0, reason="", sparse_macs=0, other_ops=0))

    # -- graphs inside ----------------------------------------------------------------------

    def _inside(self, operator: Operator, place: _Place) -> int | None:
        """Count what an operator runs, and return the largest peak."""
        kind, given = operator.kind, operator.inputs
        times, reason = place.times, place.reason
        carried: Sequence[bool] | None = None
        if kind in self._table.loops:
            (body,) = operator.bodies
            found = rounds(operator)
            if found is None:
                reason = "in a loop: how many rounds it takes is not in the graph"
            else:
                times *= found
            carried = [is_carried(body, number) for number in range(len(body.inputs))]
        elif kind in self._table.branches:
            reason = "in a branch: which one runs depends on values"
            given = given[1:]  # the first chooses among them
        inside = _Place(f"{place.named(operator.name)}/", times, reason)
        peaks = []
        for body in operator.bodies:
            for number, (outer, own) in enumerate(zip(given, body.inputs, strict=False)):
                if outer is not None and (carried is None or carried[number]):
                    self._hand_in(outer, own)
            peaks.append(self.run(body, inside))
        known = [peak for peak in peaks if peak is not None]
        return max(known) if len(known) == len(peaks) else None

    def _hand_in(self, outer: Tensor, own: Tensor) -> None:
        if id(outer) in self._origins:
            self._origins[id(own)] = self._origins[id(outer)]
        if id(outer) in self._settled:
            self._settled.add(id(own))

    # -- one operator -----------------------------------------------------------------------

    def _row(self, operator: Operator, place: _Place) -> LayerCost:
        found = [self._origins[id(item)] for item in operator.given if id(item) in self._origins]
        weights = list({id(item): item for item in found if item.is_weight}.values())
        own = [weight for weight in weights if id(weight) not in self._told]
        self._told.update(map(id, own))
        macs, reason = self._table.macs(operator)
        if macs and place.reason:
            macs, reason = None, place.reason
        others = None if place.reason else self._table.others(operator)
        sizes = [tensor.bytes for tensor in (*self._activations(operator), *weights)]
        moved = None if None in sizes else sum(size or 0 for size in sizes)
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

    def _activations(self, operator: Operator) -> list[Tensor]:
        tensors = (*operator.given, *operator.outputs)
        return [tensor for tensor in tensors if id(tensor) not in self._settled]


def _density(weights: Sequence[Tensor]) -> float:
    """Return the share of a kernel that is not zero; 1 where there is no kernel, or several."""
    kernels = [weight for weight in weights if len(weight.shape or ()) > 1]
    if len(kernels) != 1:
        return 1.0
    return kernels[0].nonzero / max(1, kernels[0].elements)


def rounds(loop: Operator) -> int | None:
    """Return the number of rounds of a loop; None: it depends on values.

    Known is a condition "counter < limit", or several of them joined by "and", whose counters
    begin at constants, grow by constants, and whose limits are constants.

    Args:
        loop: An operator with a condition and a body.
    """
    if loop.condition is None or len(loop.bodies) != 1 or len(loop.condition.outputs) != 1:
        return None
    return _Loop(loop, loop.condition, loop.bodies[0]).rounds(loop.condition.outputs[0])


def is_carried(body: Graph, place: int) -> bool:
    """Return whether a loop's body hands an input on as it is."""
    makers = body.makers()
    return _source(body.outputs[place], makers) is body.inputs[place]


def _source(tensor: Tensor, makers: dict[int, Operator]) -> Tensor:
    """Return the tensor behind copies and casts."""
    passes = ("identity", "dequantize", "cast")
    while (maker := makers.get(id(tensor))) is not None and _word(maker) in passes:
        (tensor,) = maker.given[:1]
    return tensor


def _word(operator: Operator) -> str:
    """Return one spelling for LOGICAL_AND and LogicalAnd."""
    return operator.kind.replace("_", "").lower()


class _Loop:
    def __init__(self, loop: Operator, condition: Graph, body: Graph) -> None:
        self._inputs, self._body = loop.inputs, body
        self._condition = condition
        self._makers, self._made = condition.makers(), body.makers()

    def rounds(self, tensor: Tensor) -> int | None:
        maker = self._makers.get(id(_source(tensor, self._makers)))
        word = "" if maker is None else _word(maker)
        given = [] if maker is None else maker.given
        if word == "logicaland":
            parts = [self.rounds(part) for part in given]
            return None if None in parts else min(part for part in parts if part is not None)
        if word not in ("less", "lessequal"):
            return None
        counter, limit = given
        place, last = self._place(counter), self._number(limit)
        if place is None or last is None:
            return None
        first, step = self._first(place), self._step(place)
        if first is None or step is None or step <= 0:
            return None
        count = (last - first) / step
        return max(0, math.ceil(count) if word == "less" else math.floor(count) + 1)

    def _place(self, tensor: Tensor) -> int | None:
        source = _source(tensor, self._makers)
        inputs = enumerate(self._condition.inputs)
        return next((place for place, given in inputs if given is source), None)

    def _first(self, place: int) -> float | None:
        given = self._inputs[place]
        return None if given is None else given.number

    def _number(self, tensor: Tensor) -> float | None:
        """Return a limit: a constant, or an input that no round changes."""
        source = _source(tensor, self._makers)
        if source.number is not None:
            return source.number
        place = self._place(source)
        if place is None or not is_carried(self._body, place):
            return None
        return self._first(place)

    def _step(self, place: int) -> float | None:
        """Return the step of a counter."""
        maker = self._made.get(id(_source(self._body.outputs[place], self._made)))
        if maker is None or _word(maker) not in ("add", "addv2") or len(maker.given) != 2:
            return None
        one, other = (_source(tensor, self._made) for tensor in maker.given)
        if other is self._body.inputs[place]:
            one, other = other, one
        return other.number if one is self._body.inputs[place] else None
