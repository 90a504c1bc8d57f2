"""Second moments of the inputs of a model's kernel layers, collected in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.device import limit_blas_threads
from compress.core.memory_budget import get_current_budget
from compress.model.program import Node, Program
from compress.reconstruction.kernel_parts import KernelPart, build_parts, has_parts
from compress.reconstruction.linear_paths import Absorber, Graph, find_absorbers
from compress.reconstruction.row_products import Numbers
from compress.reconstruction.sampling import count_samples
from compress.reconstruction.sums import Moments
from compress.reconstruction.tensor_store import compute_chunk_size

MAX_COLUMNS = 12_000
"""Maximum columns of a kernel; moments of more columns (1.2 GB and more) are not computed."""
MEMORY_SHARE = 1 / 10
"""Share of the free memory for the moments of one kernel; solving with them makes copies."""


@dataclass(frozen=True, eq=False)
class KernelInputs:
    """Input moments of a kernel that is a single linear system.

    Attributes:
        name: Name of the layer.
        call_index: Index of its first call in the program.
        part: Its kernel.
        moments: Moments of its rows over all calls.
        absorbers: Batch normalizations that can absorb a shift of its outputs; None: there are
            none.
    """

    name: str
    call_index: int
    part: KernelPart
    moments: Moments
    absorbers: list[Absorber] | None

    @property
    def can_shift(self) -> bool:
        """Whether the bias or a normalization can represent a constant shift of the outputs."""
        return self.part.bias is not None or self.absorbers is not None

    def compute_covariance(self) -> Numbers:
        """Return the mean products of rows, (columns, columns).

        They are centred if the outputs can be shifted.
        """
        sums = (
            self.moments.compute_centred()
            if self.can_shift
            else self.moments.compute_raw(np.zeros((1, 1)))
        )
        return np.asarray(sums[0][0] / max(1, self.moments.count))

    def read_kernel(self) -> Numbers:
        """Return the kernel, (columns, outputs)."""
        return np.asarray(self.part.to_matrix(np.asarray(self.part.kernel.numpy(), np.float64))[0])

    def find_columns(self, axis: int) -> npt.NDArray[np.int64]:
        """Return the columns of rows that belong to each index of a kernel axis.

        Returns:
            (size of the axis, columns per index).
        """
        shape = tuple(self.part.kernel.shape)
        matrix = self.part.to_matrix(np.empty(shape, np.int8)).shape
        numbers = np.broadcast_to(np.arange(matrix[1])[None, :, None], matrix)
        flat = np.moveaxis(self.part.from_matrix(np.ascontiguousarray(numbers)), axis, 0)
        other_sizes = [size for other_axis, size in enumerate(shape) if other_axis != axis]
        rows = flat.reshape(shape[axis], math.prod(other_sizes))
        return np.stack([np.unique(row) for row in rows])


@limit_blas_threads(1)
def collect_input_moments(
    program: Program,
    inputs: Sequence[npt.NDArray[Any]],
    *,
    seed: int = 0,
    samples: int | None = None,
) -> dict[int, KernelInputs]:
    """Run a model once and return the input moments of its kernel layers, by id of the kernel.

    Kernels of several systems (depthwise, grouped) are omitted: their inputs are removed with their
    outputs. So are recurrent layers, and kernels with more than 12,000 columns or with moments too
    large for the memory budget.

    Args:
        program: A flat program.
        inputs: One array per input, (examples, ...).
        seed: Seed of the sampled positions.
        samples: Number of positions per layer, over all examples; None: by its columns.
    """
    rng = np.random.default_rng(seed)
    count = len(inputs[0])
    graph = Graph(program)
    kernel_inputs: dict[int, KernelInputs] = {}

    def record_call(node: Node, values: list[Any]) -> None:
        if not has_parts(node.operation):
            return
        x = np.asarray(values[0])
        parts, _ = build_parts(node.operation, x.ndim)
        if any(part.uses_original_states for part in parts):
            return
        for part in parts:
            blank = part.create_blank_output(x.shape)
            columns = part.columns
            if part.systems != 1 or columns > MAX_COLUMNS:
                continue
            if id(part.kernel) not in kernel_inputs and not get_current_budget().can_hold(
                8 * columns**2, MEMORY_SHARE
            ):
                continue
            position_count = part.count_positions(blank)
            wanted = count_samples(1, columns) if samples is None else samples
            share = -(-wanted // (count * graph.calls[id(node.operation)]))
            per_example = min(position_count, max(1, share))
            drawn = np.stack([rng.permutation(position_count)[:per_example] for _ in range(len(x))])
            sampled = np.repeat(np.arange(len(x)), per_example), drawn.ravel()
            rows = part.extract_rows(x, blank, sampled)
            if id(part.kernel) not in kernel_inputs:
                offsets = rows.astype(np.float64).mean(1), np.zeros((1, 1))
                moments = Moments.from_offsets(offsets)
                normalizations = (
                    find_absorbers(graph, node.outputs[0]) if part is parts[-1] else None
                )
                call_index = graph.call_index[id(node)]
                kernel_inputs[id(part.kernel)] = KernelInputs(
                    node.name, call_index, part, moments, normalizations
                )
            kernel_inputs[id(part.kernel)].moments.add(rows, np.zeros((1, rows.shape[1], 1)))

    size = compute_chunk_size([program])
    for start in range(0, count, size):
        program.run([x[start : start + size] for x in inputs], record_call)
    return kernel_inputs
