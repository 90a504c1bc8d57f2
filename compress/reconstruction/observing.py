"""What a model's kernel layers read: second moments of their inputs, in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.device import one_blas_thread
from compress.core.memory_budget import current_budget
from compress.model.program import Node, Program
from compress.reconstruction.kinds import Part, has_parts, parts_of
from compress.reconstruction.paths import Absorber, Graph, absorbers
from compress.reconstruction.sums import Moments, Numbers
from compress.reconstruction.values import chunk_size

SAMPLES = 20_000
WIDEST = 12_000
"""Columns; the moments of wider inputs (1.2 GB and more) are not taken."""
HELD = 1 / 10
"""Share of what is free that the moments of one kernel may take: solving with them makes copies."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What the only system of a kernel reads.

    Attributes:
        name: Of the layer.
        place: Of its first call in the program.
        part: Its kernel.
        moments: Of its rows, over all calls.
        absorbers: Normalizations that take up a shift of its outputs; None: none do.
    """

    name: str
    place: int
    part: Part
    moments: Moments
    absorbers: list[Absorber] | None

    @property
    def movable(self) -> bool:
        """Whether something takes up a constant shift of the outputs."""
        return self.part.bias is not None or self.absorbers is not None

    def covariance(self) -> Numbers:
        """Return the mean products of rows, (columns, columns).

        About their means where outputs can be shifted, else about zero.
        """
        sums = self.moments.centred() if self.movable else self.moments.raw(np.zeros((1, 1)))
        return np.asarray(sums[0][0] / max(1, self.moments.count))

    def kernel(self) -> Numbers:
        """Return the kernel, (columns, outputs)."""
        return np.asarray(self.part.matrix(np.asarray(self.part.kernel.numpy(), np.float64))[0])

    def columns_of(self, axis: int) -> npt.NDArray[np.int64]:
        """Return for every index of a kernel's axis the columns of rows that belong to it.

        Shape: (size of the axis, columns each).
        """
        shape = tuple(self.part.kernel.shape)
        matrix = self.part.matrix(np.empty(shape, np.int8)).shape
        numbers = np.broadcast_to(np.arange(matrix[1])[None, :, None], matrix)
        flat = np.moveaxis(self.part.array(np.ascontiguousarray(numbers)), axis, 0)
        others = [size for place, size in enumerate(shape) if place != axis]
        rows = flat.reshape(shape[axis], math.prod(others))
        return np.stack([np.unique(row) for row in rows])


@one_blas_thread()
def observe(
    program: Program,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> dict[int, Observed]:
    """Run a model once and returns what its kernel layers read, by id of the kernel.

    Left out are kernels of several systems (depthwise, grouped): their inputs leave with outputs.

    Args:
        program: A flat program.
        inputs: One array an input, (examples, ...).
        seed: Of the positions that are looked at.
        samples: Of them, for each layer.
    """
    rng = np.random.default_rng(seed)
    count = len(inputs[0])
    graph = Graph(program)
    found: dict[int, Observed] = {}

    def watch(node: Node, given: list[Any]) -> None:
        if not has_parts(node.operation):
            return
        x = np.asarray(given[0])
        parts, _ = parts_of(node.operation, x.ndim)
        if any(part.guided for part in parts):
            return
        for part in parts:
            made = part.blank_output(x.shape)
            columns = part.columns
            if part.systems != 1 or columns > WIDEST:
                continue
            if id(part.kernel) not in found and not current_budget().holds(8 * columns**2, HELD):
                continue
            positions = part.positions(made)
            share = -(-samples // (count * graph.calls[id(node.operation)]))
            each = min(positions, max(1, share))
            drawn = np.stack([rng.permutation(positions)[:each] for _ in range(len(x))])
            places = np.repeat(np.arange(len(x)), each), drawn.ravel()
            rows = part.rows(x, made, places)
            if id(part.kernel) not in found:
                offsets = rows.astype(np.float64).mean(1), np.zeros((1, 1))
                moments = Moments.empty(offsets)
                ends = absorbers(graph, node.outputs[0]) if part is parts[-1] else None
                place = graph.place[id(node)]
                found[id(part.kernel)] = Observed(node.name, place, part, moments, ends)
            found[id(part.kernel)].moments.add(rows, np.zeros((1, rows.shape[1], 1)))

    size = chunk_size([program])
    for start in range(0, count, size):
        program.run([x[start : start + size] for x in inputs], watch)
    return found
