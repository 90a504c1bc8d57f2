"""Draws rows and targets of layers, out of what both models hold at a layer.

`Ahead` runs the dense model as far as the pruned one needs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import current_budget
from compress.model.program import Node
from compress.reconstruction.kinds import Kept, Part, Places
from compress.reconstruction.matching import Match
from compress.reconstruction.paths import Graph, Way, is_linear
from compress.reconstruction.samples import Sample, rounding_noise
from compress.reconstruction.sums import products
from compress.reconstruction.values import Chunks, Value

SAMPLES = 20_000
BYTES = 512 * 2**20
"""Of the rows of one layer, at most, where the memory budget allows."""
HELD = 1 / 12
"""Share of what is free that these rows may take: they are copied while they are solved for."""


class Sampler:
    """Draws positions, and gives what is to be made of what there.

    Args:
        known: What both models hold.
        kept: Kept indices of a dense kernel's axis.
        batches: Examples.
        seed: Of the positions.
        samples: Of them, of all examples together, for one layer.
    """

    def __init__(
        self, known: Known, kept: Kept, batches: Batches, seed: int, samples: int = SAMPLES
    ) -> None:
        self.known, self.kept, self.batches = known, kept, batches
        self.rng = np.random.default_rng(seed)
        self.samples = samples
        self.bytes = current_budget().share(HELD, BYTES)

    def of_layer(
        self,
        match: Match,
        part: Part,
        twin: Part,
        given: list[list[Chunks]],
        way: Way | None,
    ) -> tuple[list[Sample], list[Sample]]:
        """Samples rows and targets of all calls; those held back call by call."""
        columns = part.weights().shape[:2]
        most = max(1, int(self.bytes // (4 * columns[0] * columns[1])))
        kept = twin.channels(self.kept)
        train: list[Sample] = []
        held: list[Sample] = []
        for dense_node, values in zip(match.twin_calls, given, strict=True):
            own: list[Sample] = []
            for index, hold in enumerate(self.batches.held):
                x = sequence(values, index) if part.guided else values[0][index]
                # of a recurrence positions are those of its input
                made = x.blank if part.guided else part.blank_output(x.blank.shape)
                places = self.places(part, x, made, most // len(match.calls))
                if len(places[0]):
                    if part.guided:
                        theirs = sequence(self.known.given[id(dense_node)], index)
                        rows, targets = part.pairs(twin, x, theirs, places, self.kept)
                    else:
                        rows = part.rows(x.array, made, places)
                        targets = self._dense_outputs(part, twin, dense_node, index, places, kept)
                    rows = rows.astype(np.float32, copy=False)
                    targets, base = self._wanted(way, part, targets, index, places)
                    noise = 0.0 if part.guided else rounding_noise(rows)
                    (own if hold else train).append(Sample(rows, targets, base, noise))
            if own:
                held.append(Sample.joined(own))
        return train, held

    def targets(
        self, match: Match, part: Part, twin: Part, index: int, places: Places, way: Way | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        """Returns what a layer that is called once is to make, and what is added to it there.

        Args:
            match: The layer.
            part, twin: Its last kernel, in both models.
            index: Of the chunk.
            places: In it.
            way: What follows.
        """
        kept, node = twin.channels(self.kept), match.twin_calls[0]
        made = self._dense_outputs(part, twin, node, index, places, kept)
        return self._wanted(way, part, made, index, places)

    def _wanted(
        self,
        way: Way | None,
        part: Part,
        targets: npt.NDArray[Any],
        index: int,
        places: Places,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        targets = targets.astype(np.float32, copy=False)
        return (targets, None) if way is None else self._folded(way, part, targets, index, places)

    def _dense_outputs(
        self,
        part: Part,
        twin: Part,
        node: Node,
        index: int,
        places: Places,
        kept: npt.NDArray[np.int64],
    ) -> npt.NDArray[Any]:
        """Returns what the dense layer makes at places, (rows, kept channels)."""
        known = self.known.made.get(id(node))
        if known is not None and part.name != "depthwise" and not twin.adds_more:
            return twin.outputs(known[index].array, places)[:, kept]
        value = self.known.given[id(node)][0][index]
        rows = twin.rows(value.array, twin.blank_output(value.blank.shape), places)
        found = products(rows, twin.weights())
        return np.asarray(found[:, kept] + twin.bias_vector()[kept].astype(np.float32))

    def drawn(self, part: Part, x: Value, made: npt.NDArray[Any]) -> Places:
        """Draws as many positions as a layer of one system is looked at."""
        return self.places(part, x, made, max(1, self.bytes // (4 * part.weights().shape[1])))

    def places(self, part: Part, x: Value, made: npt.NDArray[Any], most: int) -> Places:
        """Draws positions of every example of a chunk; those that a mask leaves out are none."""
        positions = part.positions(made)
        samples = min(self.samples, most)
        count, each = len(made), min(positions, max(1, -(-samples // self.batches.count)))
        examples = np.repeat(np.arange(count), each)
        if each == positions:
            drawn = np.tile(np.arange(positions), count)
        else:
            order = self.rng.random((count, positions), np.float32)
            drawn = np.argpartition(order, each, axis=1)[:, :each].ravel()
        if x.mask is not None:
            mask = np.asarray(x.mask).reshape(count, -1)
            if mask.shape[1] == positions:
                inside = mask[examples, drawn]
                return examples[inside], drawn[inside]
        return examples, drawn

    def windows(self, grid: tuple[int, ...], count: int, samples: int, size: int) -> Places:
        """Draws positions of every example of a chunk that lie together.

        Args:
            grid: How positions lie.
            count: Examples of the chunk.
            samples: Positions of all examples together, about.
            size: Of a window, in positions; those at the border are cut.
        """
        window = window_of(grid, size)
        inside = math.prod(s * w / (s + w - 1) for s, w in zip(grid, window, strict=True))
        each = max(1, round(samples / self.batches.count / inside))
        found = np.zeros((count, *grid), bool)
        offsets = np.indices(window).reshape(len(window), -1)
        for _ in range(each):
            corner = [self.rng.integers(1 - w, s, count) for s, w in zip(grid, window, strict=True)]
            at = [c[:, None] + o for c, o in zip(corner, offsets, strict=True)]
            fits = np.all([(a >= 0) & (a < s) for a, s in zip(at, grid, strict=True)], axis=0)
            example = np.broadcast_to(np.arange(count)[:, None], fits.shape)
            found[(example[fits], *[a[fits] for a in at])] = True
        examples, positions = np.nonzero(found.reshape(count, -1))
        return examples, positions

    def _folded(
        self,
        way: Way,
        part: Part,
        targets: npt.NDArray[Any],
        index: int,
        places: Places,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Returns what is wanted behind a layer's way, and what is added there, by rows.

        The first is what the kernel is to make: offset and others are taken off.
        """
        wanted = targets * way.dense_gain + way.dense_offset
        base = np.broadcast_to(way.offset, wanted.shape)
        width = len(way.gain)
        for other in way.others:
            theirs = part.outputs(self.known.seen[id(other.dense)][index].array, places)
            mine = part.outputs(self.known.seen[id(other.pruned)][index].array, places)
            wanted = wanted + other.gains[1] * theirs[:, other.kept]
            base = base + other.gains[0] * mine[:, other.begin : other.begin + width]
        return (wanted - base).astype(np.float32), base.astype(np.float32)


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


@dataclass(frozen=True, eq=False)
class Batches:
    """Examples in chunks; the last of them are held back.

    Attributes:
        inputs: One array an input, (examples, ...), in random order.
        bounds: First and behind-last example of each chunk.
        held: Whether a chunk is held back.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    bounds: tuple[tuple[int, int], ...]
    held: tuple[bool, ...]

    @property
    def count(self) -> int:
        """Examples in all."""
        return self.bounds[-1][1]


@dataclass(eq=False)
class Known:
    """What tensors hold that are needed later.

    Attributes:
        seen: By id of the tensor, of both models.
        given: Inputs of calls of the dense model, by id of the node.
        made: Outputs of those that are linear up to there.
    """

    seen: dict[int, Chunks] = field(default_factory=dict)
    given: dict[int, list[Chunks]] = field(default_factory=dict)
    made: dict[int, Chunks] = field(default_factory=dict)


def sequence(values: list[Chunks], index: int) -> Value:
    """Returns the sequences that a recurrence is given, with the mask that it is given."""
    x = values[0][index]
    return x.masked(values[1][index].tensor) if len(values) > 1 else x


def window_of(grid: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Returns the sizes of a window of about so many positions, equal on all axes."""
    each = max(1, round(size ** (1 / len(grid))))
    return tuple(min(each, axis) for axis in grid)
