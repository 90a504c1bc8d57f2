"""Finds kernels in a row, and solves the second again together with the first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import current_budget
from compress.model.program import Node
from compress.reconstruction.attention import Scores
from compress.reconstruction.between import Between, between
from compress.reconstruction.joint import STEPS, Joint, Kernels, Pair, Places, jointly
from compress.reconstruction.kinds import Part, parts_of
from compress.reconstruction.matching import Match
from compress.reconstruction.paths import Graph, Way
from compress.reconstruction.samples import Sample
from compress.reconstruction.sampling import Sampler, window_of
from compress.reconstruction.settling import settle
from compress.reconstruction.sums import Numbers, Sums
from compress.reconstruction.values import Chunks

SAMPLES = 16_000
"""Positions of the second kernel, of all examples together, in a step."""
WINDOW = 9
"""Positions that lie together: they read much of the same, which is computed once."""
MULTIPLIES = 2e9
"""Of one product with the Jacobian, at most."""
BYTES = 96 * 2**20
"""Of the rows of the first kernel, at most, where the memory budget allows."""
HELD = 1 / 20
"""Share of what is free that these rows may take: some of them are held in several forms."""


@dataclass(frozen=True, eq=False)
class Found:
    """Two layers in a row.

    Attributes:
        first: The one in front.
        nodes: The calls between them.
    """

    first: Match
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Task:
    """What is solved together.

    Attributes:
        found: The layers.
        parts: Their kernels.
        between: What lies between them now.
        train: Places, others for each step.
        held: Places held back.
    """

    found: Found
    parts: tuple[Part, Part]
    between: Between
    train: tuple[Places, ...]
    held: Places

    def second(self, kernels: Kernels) -> Sample:
        """Returns all places as rows and targets of the second kernel."""
        pair = Pair(self.parts, self.between, None)
        return Sample.joined([pair.sample(places, kernels) for places in (*self.train, self.held)])


@dataclass(frozen=True, eq=False)
class Together:
    """What came of solving a kernel together with the one in front.

    Attributes:
        start: Weights and shift of the second.
        sums: Of the rows that it reads now.
        gain: Error on examples held back over that of the solution before.
        given: What the second layer is given now.
        first: Name of the layer in front.
    """

    start: tuple[Numbers, Numbers]
    sums: Sums
    gain: float
    given: Chunks
    first: str


class InARow:
    """Pairs of layers in a row in a pruned model.

    Args:
        graph: Of the pruned model.
        matches: What is solved for, by id of the layer.
        sampler: Draws positions.
        mask: Where a kernel may differ from zero.
        call: Makes a call for every chunk.
    """

    def __init__(
        self,
        graph: Graph,
        matches: dict[int, Match],
        sampler: Sampler,
        mask: Callable[[Any], npt.NDArray[np.bool_] | None],
        call: Callable[[Node, list[Chunks]], list[Chunks]],
    ) -> None:
        self.graph, self.sampler, self.mask, self.call = graph, sampler, mask, call
        self._found: dict[int, Found] = {}
        self._given: dict[int, Chunks] = {}
        for match in matches.values():
            part = _only_part(match)
            if part is not None:
                self._look_behind(match, part, matches)
        self._firsts = {id(found.first.layer) for found in self._found.values()}

    def _look_behind(self, match: Match, part: Part, matches: dict[int, Match]) -> None:
        """Notes which layer reads this one alone, and only elements of it."""
        node = self.graph.only_user(match.calls[0].outputs[0])
        while node is not None and id(node.operation) not in matches:
            node = self.graph.only_user(node.outputs[0]) if len(node.outputs) == 1 else None
        second = None if node is None else matches[id(node.operation)]
        if node is None or second is None or _only_part(second) is None:
            return
        found = between(self.graph, match.calls[0], node, part.channel_rows, part.width)
        if found is not None:
            self._found[id(second.layer)] = Found(match, found.nodes)

    def remember(self, match: Match, given: Chunks) -> None:
        """Keeps what a layer is given until the next one is solved, where both are a pair."""
        if id(match.layer) in self._firsts:
            self._given[id(match.layer)] = given

    def together(
        self, match: Match, given: Chunks, twin: Part, way: Way | None,
        start: tuple[Numbers, Numbers], movable: bool,
    ) -> Together | None:  # fmt: skip
        """Solves a layer together with the one in front, which is put back.

        Args:
            match: The second layer.
            given: Its inputs.
            twin: Its kernel in the dense model.
            way: What follows it.
            start: Its weights (systems, columns, outputs) and shift, behind its way.
            movable: Whether something takes up a shift of it.

        Returns:
            What comes of it; None: there is no pair, it is too large, or nothing helped.
        """
        task = self._task(match, given, twin, way)
        if task is None:
            return None
        found = self._solved(task, way, start, movable)
        if not found.steps:
            return None
        sums = task.second(found.kernels).sums()
        self._settle_first(task, found.kernels)
        kernels = found.kernels.second, found.kernels.shifts[1]
        again = self._given_again(task)
        return Together(kernels, sums, found.after / found.before, again, task.found.first.name)

    def _task(self, match: Match, given: Chunks, twin: Part, way: Way | None) -> Task | None:
        """Returns what is to be solved together with a layer; None: nothing, or it is too large."""
        found = self._found.get(id(match.layer))
        before = None if found is None else self._given.get(id(found.first.layer))
        if found is None or before is None:
            return None
        first, second = _only_part(found.first), _only_part(match)
        assert first is not None
        assert second is not None
        x, y = before[0].blank, given[0].blank
        made = first.blank_output(x.shape), second.blank_output(y.shape)
        reads = second.neighbours(y, made[1])
        if reads is None or first.neighbours(x, made[0]) is None:
            return None
        most = _most(first, second, _shared(reads, second.grid(made[1])))
        channels = second.width
        unknown = first.weights().size + second.weights().size
        count = self.sampler.batches.count
        if most < count or most * channels < unknown:
            return None  # so few positions would fit anything
        way_between = between(
            self.graph, found.first.calls[0], match.calls[0], first.channel_rows, first.width
        )
        if way_between is None:
            return None

        def drawn(hold: bool) -> Places | None:
            found = [
                self._places(match, (first, second), twin, way, (before, given), index, reads, most)
                for index, held in enumerate(self.sampler.batches.held) if held == hold
            ]  # fmt: skip
            some = [places for places in found if places is not None]
            return Places.joined(some) if some else None

        # every step sees other positions: what it fits is no chance
        train, held = [drawn(False) for _ in range(STEPS)], drawn(True)
        whole = [places for places in train if places is not None]
        if len(whole) < STEPS or held is None:
            return None
        return Task(found, (first, second), way_between, tuple(whole), held)

    def _places(
        self, match: Match, parts: tuple[Part, Part], twin: Part, way: Way | None,
        given: tuple[Chunks, Chunks], index: int, table: npt.NDArray[np.int64], most: int,
    ) -> Places | None:  # fmt: skip
        """Draws positions of one chunk."""
        x, y = given[0][index], given[1][index]
        made = parts[0].blank_output(x.blank.shape), parts[1].blank_output(y.blank.shape)
        if table.shape[1] == 1 or y.mask is not None:
            where = self.sampler.places(parts[1], y, made[1], most)
        else:
            where = self.sampler.windows(parts[1].grid(made[1]), len(made[1]), most, WINDOW)
        if not len(where[0]):
            return None
        local, positions = table[where[1]], parts[0].positions(made[0])
        number = where[0][:, None] * positions + local
        hidden, place = np.unique(number[local >= 0], return_inverse=True)
        reads = np.full(local.shape, len(hidden))
        reads[local >= 0] = place.ravel()
        rows = parts[0].rows(x.array, made[0], (hidden // positions, hidden % positions))
        targets, base = self.sampler.targets(match, parts[1], twin, index, where, way)
        return Places(rows.astype(np.float32, copy=False), reads, targets, base)

    def _solved(
        self, task: Task, way: Way | None, start: tuple[Numbers, Numbers], movable: bool
    ) -> Joint:
        """Solves both kernels from where they are."""
        import keras

        first, second = task.parts
        normalized = isinstance(task.between.way.first, keras.layers.BatchNormalization)
        kernel = first.weights()
        gain = task.between.way.gain.reshape(kernel.shape[0], 1, kernel.shape[2])
        shift = task.between.way.gain * first.bias_vector() + task.between.way.offset
        supports = first.support(self.mask), second.support(self.mask)
        pair = Pair(
            task.parts, task.between, None if way is None else way.clip, supports,
            (first.bias is not None or normalized, movable),
        )  # fmt: skip
        kernels = Kernels(kernel * gain, start[0], (shift, start[1].reshape(-1)))
        return jointly(pair, task.train, task.held, kernels)

    def _settle_first(self, task: Task, kernels: Kernels) -> None:
        """Puts the solution of the first kernel back."""
        first, way = task.parts[0], task.between.way
        rows = np.concatenate([places.rows for places in (*task.train, task.held)], 1)
        targets = np.zeros((rows.shape[1], first.width), np.float32)
        settle(
            first, way, kernels.first, kernels.shifts[0] - way.offset, Sample(rows, targets).sums(),
            None,
        )  # fmt: skip

    def _given_again(self, task: Task) -> Chunks:
        """Returns what the second layer is given, now that the first one's kernel is another."""
        value = self._given[id(task.found.first.layer)]
        for node in (task.found.first.calls[0], *task.found.nodes):
            (value,) = self.call(node, [value])
        return value

    def forget(self, match: Match) -> None:
        """Lets go of what the layer in front of one was given."""
        found = self._found.get(id(match.layer))
        if found is not None:
            self._given.pop(id(found.first.layer), None)


def _only_part(match: Match) -> Part | None:
    """Returns the kernel of a layer that has one and is called once."""
    if isinstance(match, Scores) or len(match.calls) != 1 or len(match.calls[0].inputs) != 1:
        return None
    parts, _ = parts_of(match.layer, len(match.calls[0].inputs[0].shape))
    if len(parts) != 1 or parts[0].guided or parts[0].adds_more:
        return None
    return parts[0]


def _shared(reads: npt.NDArray[np.int64], grid: tuple[int, ...]) -> float:
    """Returns how many positions of the first kernel one of the second needs, within a window."""
    size = window_of(grid, WINDOW)
    inside = np.zeros(grid, bool)
    inside[
        tuple(slice((s - w) // 2, (s - w) // 2 + w) for s, w in zip(grid, size, strict=True))
    ] = 1
    read = reads[inside.ravel()]
    return len(np.unique(read[read >= 0])) / max(1, len(read))


def _most(first: Part, second: Part, shared: float) -> int:
    """Returns how many positions of the second kernel are looked at."""
    one, two = first.weights(), second.weights()
    products = shared * one.size + two.size
    held = 4 * shared * one.shape[0] * one.shape[1]
    room = current_budget().share(HELD, BYTES)
    return int(min(SAMPLES, MULTIPLIES // products, room // held))
