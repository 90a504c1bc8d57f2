"""Geometric median: filters near all others are redundant and leave first."""

from __future__ import annotations

import numpy as np

from compress.prune.channels.coupling.groups import Group
from compress.prune.channels.criteria._base import Context, Scores, Slice
from compress.prune.channels.criteria.magnitude import l2


def fpgm(group: Group, context: Context) -> Scores:
    """Scores units by the summed distance of their kernel slices to all others', (units,).

    Reference:
        He et al. 2019, "Filter Pruning via Geometric Median", eq. 4; over all kernels that a
        unit owns instead of its filter alone. A group without kernels is scored by l2.
    """
    parts = context.kernels(group)
    if not parts:
        context.notes.append(f"group '{group.name}' owns no kernel: scored by l2")
        return l2(group, context)
    size = len(group.units)
    squares = np.zeros((size, size))
    for part in parts:
        rows = _rows(part, context, size)
        lengths = np.einsum("ij,ij->i", rows, rows)
        squares += lengths[:, None] + lengths[None, :] - 2 * (rows @ rows.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0)).sum(1))


def _rows(part: Slice, context: Context, size: int) -> Scores:
    """Returns what each unit owns of a weight as one row, (units, entries)."""
    value = np.moveaxis(context.value(part.variable), part.axis, 0)
    return value[part.entries].reshape(size, -1).astype(np.float64)
