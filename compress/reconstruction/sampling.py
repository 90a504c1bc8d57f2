"""Draws rows and targets of layers, out of what both models hold at a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import current_budget
from compress.model.program import Node
from compress.reconstruction.kinds import Kept, Part, Places
from compress.reconstruction.matching import Match
from compress.reconstruction.paths import Graph, Way, is_linear
from compress.reconstruction.sums import Sample, Singles, products, rounding_noise
from compress.reconstruction.values import Chunks, Value

SAMPLES = 20_000
BYTES = 512 * 2**20
"""Of the rows of one layer, at most, where the memory budget allows."""
HELD = 1 / 12
"""Share of what is free that these rows may take: they are copied while they are solved for."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Examples in chunks; the last of them are held back.

    Attributes:
        inputs: One array an input, (examples, ...), in random order.
        bounds: First and behind-last example of each chunk.
        held: Whether a chunk is held back.
        count: Examples in all.
    """

    inputs: tuple[npt.NDArray[Any], ...]
    bounds: tuple[tuple[int, int], ...]
    held: tuple[bool, ...]
    count: int


class Sampler:
    """Draws positions, and gives what is to be made of what there.

    Args:
        kept: Kept indices of a dense kernel's axis.
        batches: Examples.
        seed: Of the positions.
        samples: Of them, of all examples together, for one layer.

    Attributes:
        seen: What tensors of both models hold that are needed later, by id.
        given: Inputs of calls of the dense model, by id of the node.
        made: Outputs of those that are linear up to there.
    """

    def __init__(self, kept: Kept, batches: Batches, seed: int, samples: int = SAMPLES) -> None:
        self.seen: dict[int, Chunks] = {}
        self.given: dict[int, list[Chunks]] = {}
        self.made: dict[int, Chunks] = {}
        self.kept, self.batches, self.samples = kept, batches, samples
        self.rng = np.random.default_rng(seed)
        self.bytes = current_budget().share(HELD, BYTES)

    def of_layer(
        self, match: Match, part: Part, twin: Part, given: list[list[Chunks]], way: Way | None
    ) -> tuple[list[Sample], list[Sample]]:
        """Sample rows and targets of all calls; those held back call by call."""
        systems, columns, _ = part.weights().shape
        most = max(1, int(self.bytes // (4 * systems * columns))) // len(match.calls)
        train: list[Sample] = []
        held: list[Sample] = []
        for node, values in zip(match.twin_calls, given, strict=True):
            own: list[Sample] = []
            for index, hold in enumerate(self.batches.held):
                x = sequence(values, index) if part.guided else values[0][index]
                # of a recurrence positions are those of its input
                made = x.blank if part.guided else part.blank_output(x.blank.shape)
                places = self.places(part, x, made, most)
                if not len(places[0]):
                    continue
                if part.guided:
                    theirs = sequence(self.given[id(node)], index)
                    pair = part.pairs(twin, x, theirs, places, self.kept)
                    rows, wanted = (side.astype(np.float32, copy=False) for side in pair)
                    sample = Sample(rows, wanted)
                else:
                    rows = part.rows(x.array, made, places).astype(np.float32, copy=False)
                    targets = self.targets(node, part, twin, index, places, way)
                    sample = Sample(rows, *targets, rounding_noise(rows))
                (own if hold else train).append(sample)
            if own:
                held.append(Sample.joined(own))
        return train, held

    def targets(
        self, node: Node, part: Part, twin: Part, index: int, places: Places, way: Way | None
    ) -> tuple[Singles, Singles | None]:
        """Return what a layer is to make, and what is added to it behind it, by rows.

        Args:
            node: Its call in the dense model.
            part, twin: A kernel, in both models.
            index: Of the chunk.
            places: In it.
            way: What follows; None: it was not followed.
        """
        kept, known = twin.channels(self.kept), self.made.get(id(node))
        if known is not None and part.name != "depthwise" and not twin.adds_more:
            made = twin.outputs(known[index].array, places)[:, kept]
        else:
            value = self.given[id(node)][0][index]
            rows = twin.rows(value.array, twin.blank_output(value.blank.shape), places)
            made = products(rows, twin.weights())[:, kept]
            made = made + twin.bias_vector()[kept].astype(np.float32)
        return self._folded(way, part, made, index, places)

    def _folded(
        self, way: Way | None, part: Part, made: npt.NDArray[Any], index: int, places: Places
    ) -> tuple[Singles, Singles | None]:
        """Return what is wanted behind a layer's way, and what is added there, by rows.

        The first is what the kernel is to make: offset and others are taken off.
        """
        made = made.astype(np.float32, copy=False)
        if way is None:
            return made, None
        wanted = made * way.dense_gain + way.dense_offset
        base = np.broadcast_to(way.offset, wanted.shape)
        width = len(way.gain)
        for other in way.others:
            theirs = part.outputs(self.seen[id(other.dense)][index].array, places)
            mine = part.outputs(self.seen[id(other.pruned)][index].array, places)
            wanted = wanted + other.gains[1] * theirs[:, other.kept]
            base = base + other.gains[0] * mine[:, other.begin : other.begin + width]
        return (wanted - base).astype(np.float32), base.astype(np.float32)

    def places(self, part: Part, x: Value, made: npt.NDArray[Any], most: int) -> Places:
        """Draw positions of every example of a chunk; those that a mask leaves out are none."""
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
        """Draw positions of every example of a chunk that lie together.

        Args:
            grid: How positions lie.
            count: Examples of the chunk.
            samples: Positions of all examples together, about.
            size: Of a window, in positions; those at the border are cut.
        """
        window = window_of(grid, size)
        inside = math.prod(s * w / (s + w - 1) for s, w in zip(grid, window, strict=True))
        found = np.zeros((count, *grid), bool)
        offsets = np.indices(window).reshape(len(window), -1)
        for _ in range(max(1, round(samples / self.batches.count / inside))):
            corner = [self.rng.integers(1 - w, s, count) for s, w in zip(grid, window, strict=True)]
            at = [c[:, None] + o for c, o in zip(corner, offsets, strict=True)]
            fits = np.all([(a >= 0) & (a < s) for a, s in zip(at, grid, strict=True)], axis=0)
            example = np.broadcast_to(np.arange(count)[:, None], fits.shape)
            found[(example[fits], *[a[fits] for a in at])] = True
        examples, positions = np.nonzero(found.reshape(count, -1))
        return examples, positions


class Run:
    """Runs a program for all chunks, step by step.

    Args:
        graph: Of the program.
        inputs: Of the model.
        sampler: Keeps what tensors hold that are needed later.
        wanted: These tensors, by id.
        call: Makes a call for every chunk.
        calls: Calls of the dense model whose inputs are needed later, by id of the node.
        order: Of the calls, in steps; default: one by one.

    Attributes:
        asked: The calls of the next step with what they are given; None: it is at its end.
        done: Calls that were made.
        outputs: Of the model, at the end.
    """

    def __init__(
        self, graph: Graph, inputs: list[Chunks], sampler: Sampler, wanted: set[int],
        call: Callable[[Node, list[Chunks]], list[Chunks]], *, calls: Set[int] = frozenset(),
        order: Sequence[Sequence[Node]] | None = None,
    ) -> None:  # fmt: skip
        self.graph, self.sampler, self.wanted = graph, sampler, wanted
        self.call, self.calls = call, calls
        self.done = 0
        self.outputs: list[Chunks] = []
        self._note(graph.program.inputs, inputs)
        self._steps = graph.program.stepwise(inputs, order)
        self.asked: list[tuple[Node, list[Any]]] | None = next(self._steps)

    def _note(self, tensors: Sequence[Any], values: Sequence[Any]) -> None:
        for tensor, value in zip(tensors, values, strict=True):
            if id(tensor) in self.wanted:
                self.sampler.seen[id(tensor)] = value

    def step(self) -> None:
        """Make the calls of a step."""
        asked, self.asked = self.asked or [], None
        results: list[Sequence[Any]] = [self.call(node, given) for node, given in asked]
        for (node, given), made in zip(asked, results, strict=True):
            if id(node) in self.calls:
                self.sampler.given[id(node)] = given
                if is_linear(getattr(node.operation, "activation", None)):
                    self.sampler.made[id(node)] = made[0]
            self._note(node.outputs, made)
        self.done += len(asked)
        del asked, given
        try:
            self.asked = self._steps.send(results)
        except StopIteration as end:
            self.outputs = list(end.value)

    def until(self, match: Match, way: Way | None) -> None:
        """Go on in the dense model until a layer's inputs and what is added behind are known."""
        places = [self.graph.place[id(node)] for node in match.twin_calls]
        places += [self.graph.made[id(other.dense)] for other in (way.others if way else ())]
        while self.asked is not None and self.done <= max(places):
            self.step()


def sequence(values: list[Chunks], index: int) -> Value:
    """Return the sequences that a recurrence is given, with the mask that it is given."""
    x = values[0][index]
    return x.masked(values[1][index].tensor) if len(values) > 1 else x


def window_of(grid: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Return the sizes of a window of about so many positions, equal on all axes."""
    each = max(1, round(size ** (1 / len(grid))))
    return tuple(min(each, axis) for axis in grid)
