"""Finds kernels in a row, and solves the second again together with the first."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.memory_budget import current_budget
from compress.model.program import Node
from compress.reconstruction.attention import Scores
from compress.reconstruction.joint import STEPS, Between, Kernels, Pair, Places, jointly
from compress.reconstruction.kinds import Array, Part
from compress.reconstruction.matching import Match
from compress.reconstruction.paths import Graph, Way, affine, clip_of, is_linear, own_scale
from compress.reconstruction.sampling import Sampler, window_of
from compress.reconstruction.settling import settle
from compress.reconstruction.sums import Numbers, Sample, Singles, Sums
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

Together = tuple[tuple[Numbers, Numbers], Sums, float, Chunks, str]


class InARow:
    """Pairs of layers in a row in a pruned model.

    Args:
        graph: Of the pruned model.
        matches: What is solved for, by id of the layer.
        sampler: Draws positions.
        mask: Where a kernel may differ from zero.
        call: Makes a call for every chunk.

    Attributes:
        given: What the layer in front was given, by id of the second one.
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
        self._first: dict[int, Match] = {}  # the layer in front, by id of the second one
        self.given: dict[int, Chunks] = {}
        self._ends = {id(node) for match in matches.values() for node in match.calls}
        for first in filter(_is_single, matches.values()):
            path = self._between(first)
            second = None if path is None else matches.get(id(path.second.operation))
            if second is not None and _is_single(second):
                self._first[id(second.layer)] = first

    def _between(self, first: Match) -> Between | None:
        part = first.parts[0]
        return between(self.graph, first.calls[0], self._ends, part.channel_rows, part.width)

    def remember(self, match: Match, given: Chunks) -> None:
        """Keep what a layer is given until the next one is solved, where both are a pair."""
        for second, first in self._first.items():
            if first is match:
                self.given[second] = given

    def together(
        self, match: Match, given: Chunks, way: Way, start: tuple[Numbers, Numbers], movable: bool
    ) -> Together | None:
        """Solve a layer together with the one in front, which is put back.

        Args:
            match: The second layer.
            given: Its inputs.
            way: What follows it.
            start: Its weights (systems, columns, outputs) and shift, behind its way.
            movable: Whether something takes up a shift of it.

        Returns:
            Weights and shift of the second, the sums of the rows that it reads now, its error on
            examples held back over that of the solution before, its inputs now, and the name of
            the layer in front. None: there is no pair, it is too large, or nothing helped.
        """
        import keras

        if id(match.layer) not in self._first:
            return None
        first, before = self._first[id(match.layer)], self.given[id(match.layer)]
        places = self._drawn(first, match, (before, given), way)
        path = self._between(first)
        if places is None or path is None:
            return None
        one, two = first.parts[0], match.parts[0]
        normalized = isinstance(path.way.first, keras.layers.BatchNormalization)
        pair = Pair(
            (one, two), path, way.clip, (one.support(self.mask), two.support(self.mask)),
            (one.bias is not None or normalized, movable),
        )  # fmt: skip
        kernel = one.weights()
        gain = path.way.gain.reshape(len(kernel), 1, -1)
        shift = path.way.gain * one.bias_vector() + path.way.offset
        kernels = Kernels(kernel * gain, start[0], (shift, start[1].reshape(-1)))
        found = jointly(pair, places[:-1], places[-1], kernels)
        if not found.steps:
            return None
        kernels = found.kernels
        sums = Sample.joined([pair.sample(part, kernels) for part in places]).sums()
        rows = np.concatenate([part.rows for part in places], 1)
        # of the targets nothing is used
        read = Sample(rows, np.zeros((rows.shape[1], one.width), np.float32)).sums()
        settle(one, path.way, kernels.first, kernels.shifts[0] - path.way.offset, read, None)
        again = before
        for node in (first.calls[0], *path.nodes):
            (again,) = self.call(node, [again])
        start = kernels.second, kernels.shifts[1]
        return start, sums, found.after / found.before, again, first.name

    def _drawn(
        self, first: Match, match: Match, given: tuple[Chunks, Chunks], way: Way
    ) -> list[Places] | None:
        """Draw places for each step, and those held back; None: there are too few or too many."""
        parts = first.parts[0], match.parts[0]
        x, y = given[0][0].blank, given[1][0].blank
        made = parts[0].blank_output(x.shape), parts[1].blank_output(y.shape)
        reads = parts[1].neighbours(y, made[1])
        if reads is None or parts[0].neighbours(x, made[0]) is None:
            return None
        most = _most(*parts, _shared(reads, parts[1].grid(made[1])))
        unknown = sum(part.weights().size for part in parts)
        if most < self.sampler.batches.count or most * parts[1].width < unknown:
            return None  # so few positions would fit anything
        drawn = []
        # every step sees other positions: what it fits is no chance
        for hold in (*[False] * STEPS, True):
            chunks = [
                self._places(first, match, given, way, index, reads, most)
                for index, held in enumerate(self.sampler.batches.held) if held == hold
            ]  # fmt: skip
            some = [places for places in chunks if places is not None]
            if not some:
                return None
            drawn.append(Places.joined(some))
        return drawn

    def _places(
        self, first: Match, match: Match, given: tuple[Chunks, Chunks], way: Way, index: int,
        table: npt.NDArray[np.int64], most: int,
    ) -> Places | None:  # fmt: skip
        """Draw positions of one chunk."""
        one, two = first.parts[0], match.parts[0]
        x, y = given[0][index], given[1][index]
        made = one.blank_output(x.blank.shape), two.blank_output(y.blank.shape)
        if table.shape[1] == 1 or y.mask is not None:
            where = self.sampler.places(two, y, made[1], most)
        else:
            where = self.sampler.windows(two.grid(made[1]), len(made[1]), most, WINDOW)
        if not len(where[0]):
            return None
        local, positions = table[where[1]], one.positions(made[0])
        number = where[0][:, None] * positions + local
        hidden, place = np.unique(number[local >= 0], return_inverse=True)
        reads = np.full(local.shape, len(hidden))
        reads[local >= 0] = place.ravel()
        rows = one.rows(x.array, made[0], (hidden // positions, hidden % positions))
        twin = match.twin_calls[0], two, match.twins[0]
        targets = self.sampler.targets(*twin, index, where, way)
        return Places(rows.astype(np.float32, copy=False), reads, *targets)


def _is_single(match: Match) -> bool:
    """Tell whether a layer has one kernel, which alone makes its output, and is called once."""
    if isinstance(match, Scores) or len(match.calls) != 1 or len(match.calls[0].inputs) != 1:
        return False
    return len(match.parts) == 1 and not match.parts[0].guided and not match.parts[0].adds_more


def between(
    graph: Graph, first: Node, ends: Set[int], rows: Callable[[Array], Array], width: int
) -> Between | None:
    """Follow a kernel's output to the next kernel; None where more happens, or it branches off.

    Args:
        graph: Of the pruned model.
        first: The call of the kernel.
        ends: Calls of kernels, by id of the node.
        rows: Brings tensors of the first one's output into rows of channels.
        width: Its channels.
    """
    way, gain, offset, apply = Way(width), np.ones(width), np.zeros(width), None
    own = getattr(first.operation, "activation", None)
    if own is not None and not is_linear(own):
        apply, way.clip = _elementwise(lambda tensors: own(*tensors)), clip_of(own)
        if apply is None:
            return None
    nodes: list[Node] = []
    tensor = first.outputs[0]
    while True:
        node = graph.only_user(tensor)
        if node is None:
            return None
        if id(node) in ends:
            whole = tensor is node.inputs[0]
            return Between(tuple(nodes), node, way, apply, gain, offset) if whole else None
        if len(node.outputs) != 1:
            return None
        if tuple(node.outputs[0].shape)[1:] != tuple(tensor.shape)[1:]:
            return None
        found = affine(node, rows)
        if found is None:
            if apply is not None or len(node.inputs) != 1:
                return None
            if getattr(node.operation, "weights", None):
                return None
            apply, way.clip = _elementwise(node.call), clip_of(node.operation)
            if apply is None:
                return None
        elif apply is not None:
            gain, offset = found[0] * gain, found[0] * offset + found[1]
        else:
            way.scale(*found, None if nodes else own_scale(graph, node))
        nodes.append(node)
        tensor = node.outputs[0]


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Singles], Singles] | None:
    """Return a function of tensors as one of arrays; None: elements depend on others, by trial."""
    import keras

    def apply(x: Singles) -> Singles:
        made = function([keras.ops.convert_to_tensor(x)])
        return np.asarray(keras.ops.convert_to_numpy(made), np.float32)

    x = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    changed = x.copy()
    changed[:3, :4] = 3.0 * changed[3:, 4:]
    try:
        made, other = apply(x), apply(changed)
    except Exception:  # what takes no array of this shape is no function of elements
        return None
    if made.shape != x.shape or not np.isfinite(made).all():
        return None
    same = np.ones(x.shape, bool)
    same[:3, :4] = False
    return apply if np.array_equal(made[same], other[same]) else None


def _shared(reads: npt.NDArray[np.int64], grid: tuple[int, ...]) -> float:
    """Return how many positions of the first kernel one of the second needs, within a window."""
    size = window_of(grid, WINDOW)
    inside = np.zeros(grid, bool)
    inside[
        tuple(slice((s - w) // 2, (s - w) // 2 + w) for s, w in zip(grid, size, strict=True))
    ] = 1
    read = reads[inside.ravel()]
    return len(np.unique(read[read >= 0])) / max(1, len(read))


def _most(first: Part, second: Part, shared: float) -> int:
    """Return how many positions of the second kernel are looked at."""
    one, two = first.weights(), second.weights()
    products = shared * one.size + two.size
    held = 4 * shared * one.shape[0] * one.shape[1]
    room = current_budget().share(HELD, BYTES)
    return int(min(SAMPLES, MULTIPLIES // products, room // held))
