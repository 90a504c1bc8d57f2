"""Products of the rows of a layer, and calls by blocks of rows in several threads.

Rows are (systems, rows, columns) in any memory layout. The rows of a depthwise kernel are views of
patches with the channels last, because a matrix product per channel would stride through all of
memory. Sums along the channels are 7 to 20 times as fast (240 channels, 3 x 3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from compress.core.device import count_threads
from compress.core.memory_budget import get_current_budget

ResultT = TypeVar("ResultT")
Singles = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
"""Array of single or double precision."""
WIDE = 512
"""Columns from which the products of noisy rows are summed in single precision within a block, and
one system is solved on all cores."""
BLOCK = 512
"""Rows that are summed in their own precision; the sums of blocks are in double precision."""
THREADS_SHARE = 1 / 16
"""Share of the free memory for the sums of blocks that several threads compute."""


def map_blocks(
    function: Callable[[slice], ResultT], count: int, block: int, result_bytes: int
) -> Iterator[ResultT]:
    """Call a function for each block of rows, in several threads, and yield the results in order.

    The order makes sums of the results independent of the number of threads. BLAS should have one
    thread meanwhile, see `limit_blas_threads`.

    Args:
        function: Called with the slice of a block; it runs in a thread.
        count: Number of rows.
        block: Rows of a block.
        result_bytes: Size of a result. Each thread has one, and one more is read meanwhile; if
            these do not fit into the memory budget, one thread does all.
    """
    blocks = [slice(start, start + block) for start in range(0, count, block)]
    threads = min(count_threads(), len(blocks))
    if threads < 2 or not get_current_budget().can_hold(
        (threads + 1) * result_bytes, THREADS_SHARE
    ):
        yield from map(function, blocks)
        return
    pending: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for part in blocks:
            if len(pending) > threads:
                yield pending.popleft().result()
            pending.append(pool.submit(function, part))
        while pending:
            yield pending.popleft().result()


def multiply_rows(rows: Singles, weights: Floats) -> Singles:
    """Return rows x weights.

    Args:
        rows: (systems, rows, columns).
        weights: (systems, columns, outputs).

    Returns:
        (rows, channels); the channels are the concatenated outputs of all systems.

    Example:
        >>> multiply_rows(np.float32([[[1, 2], [3, 4]]]), np.array([[[1.0], [10.0]]])).tolist()
        [[21.0], [43.0]]
    """
    kernel = weights.astype(np.float32, copy=False)
    patches = _view_channels_last(rows)
    if patches is None:
        return np.asarray((rows @ kernel).transpose(1, 0, 2).reshape(rows.shape[1], -1))
    kernels = np.ascontiguousarray(kernel.transpose(2, 1, 0))
    outputs = [np.einsum("rcs,cs->rs", patches, part) for part in kernels]
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, 2).reshape(len(patches), -1)


def multiply_transposed(rows: Floats, u: Floats) -> Numbers:
    """Return rows' x u, summed over rows.

    Args:
        rows: (systems, rows, columns).
        u: (rows, channels).

    Returns:
        (systems, columns, outputs).

    Example:
        >>> multiply_transposed(np.float32([[[1, 2], [3, 4]]]), np.float32([[1], [10]])).tolist()
        [[[31.0], [42.0]]]
    """
    shaped = u.reshape(len(u), len(rows), -1)
    patches = _view_channels_last(rows)
    if patches is None:
        right = np.ascontiguousarray(shaped.transpose(1, 0, 2))
        return np.asarray(rows.transpose(0, 2, 1) @ right, np.float64)
    sums = [_sum_over_rows(patches, np.ascontiguousarray(shaped[:, :, output]))
            for output in range(shaped.shape[2])]  # fmt: skip
    return np.stack(sums, 2).transpose(1, 0, 2)


def compute_gram(rows: Floats) -> Numbers:
    """Return rows' x rows, (systems, columns, columns), summed in the precision of the rows.

    If the systems are last in memory, only blocks are summed in this precision.

    Args:
        rows: (systems, rows, columns).
    """
    patches = _view_channels_last(rows)
    if patches is None:
        return np.asarray(rows.transpose(0, 2, 1) @ rows, np.float64)
    columns = rows.shape[2]
    products = np.empty((len(rows), columns, columns))
    for column in range(columns):
        half = _sum_over_rows(patches[:, : column + 1], patches[:, column])
        products[:, column, : column + 1] = products[:, : column + 1, column] = half.T
    return products


def _view_channels_last(rows: Floats) -> Floats | None:
    """Return a view (rows, columns, systems) if the systems are last in memory, else None."""
    return rows.transpose(1, 2, 0) if len(rows) > 1 and rows.strides[0] == rows.itemsize else None


def _sum_over_rows(patches: Floats, u: Floats) -> Numbers:
    """Return the sums over rows of patches (rows, columns, systems) x u (rows, systems)."""
    total = np.zeros(patches.shape[1:])
    for start in range(0, len(patches), BLOCK):
        part = slice(start, start + BLOCK)
        total += np.einsum("rcs,rs->cs", patches[part], u[part])
    return total
