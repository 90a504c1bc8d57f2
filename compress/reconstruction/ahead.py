"""The dense model, run as far as the pruned one needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.model.program import Node
from compress.reconstruction.matching import Match
from compress.reconstruction.paths import Graph, Way, is_linear
from compress.reconstruction.sampling import Chunks, Known


class Ahead:
    """Runs the dense model as far as the pruned one needs it.

    Args:
        graph: Of the dense program.
        inputs: Of the model.
        known: Where it is kept what layers that are solved for were given and made.
        calls: Those of these layers, by id of the node.
        wanted: Tensors that are needed later, by id.
        call: Makes a call for every chunk.
    """

    def __init__(
        self, graph: Graph, inputs: list[Chunks], known: Known, calls: set[int], wanted: set[int],
        call: Callable[[Node, list[Chunks]], list[Chunks]],
    ) -> None:  # fmt: skip
        self.graph, self.known, self.calls, self.wanted = graph, known, calls, wanted
        self.call = call
        self.steps = graph.program.stepwise(inputs)
        self.asked: Any = None
        self.outputs: list[Chunks] | None = None
        self.place = -1
        for tensor, value in zip(graph.program.inputs, inputs, strict=True):
            if id(tensor) in wanted:
                known.seen[id(tensor)] = value
        self._next(None)

    def _next(self, results: Any) -> None:
        try:
            self.asked = next(self.steps) if results is None else self.steps.send(results)
        except StopIteration as end:
            self.outputs, self.asked = list(end.value), None

    def _step(self) -> None:
        ((node, given),) = self.asked
        self.asked = None
        made = self.call(node, given)
        if id(node) in self.calls:
            if is_linear(getattr(node.operation, "activation", None)):
                self.known.made[id(node)] = made[0]
            self.known.given[id(node)] = given
        for tensor, value in zip(node.outputs, made, strict=True):
            if id(tensor) in self.wanted:
                self.known.seen[id(tensor)] = value
        self.place += 1
        del given
        self._next([made])

    def until(self, match: Match, way: Way | None) -> None:
        """Goes on until a layer's inputs and what is added behind it are known."""
        places = [self.graph.place[id(node)] for node in match.twin_calls]
        places += [self.graph.made[id(other.dense)] for other in (way.others if way else ())]
        while self.asked is not None and self.place < max(places):
            self._step()

    def finish(self) -> list[Chunks]:
        """Goes to the end and returns the outputs."""
        while self.asked is not None:
            self._step()
        assert self.outputs is not None
        return self.outputs
