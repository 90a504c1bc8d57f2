"""Sizes of files as a function of widths and blocks, fitted to some files that were made."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.measure.latency_table.measuring import Convert
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import some_choices, thinner_nets
from compress.shrinking.estimates import presence

if TYPE_CHECKING:
    from compress.prune.channels.coupling.blocks import Block
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.solver import Allowed
    from compress.shrinking.dense import DenseFiles

NETS = 6
"""Files that are made for the fit: what they tell has three unknowns,"""
SHALLOW = 3
"""and so many more where blocks may leave: there are four then."""


def file_sizes_of(
    coupling: Coupling,
    allowed: Allowed,
    blocks: Sequence[Block],
    convert: Convert,
    format: str,
    dense: DenseFiles,
    seed: int,
) -> Priced:
    """Fits the bytes of a file: so many, and a share of each parameter, channel and weight tensor.

    Channels are counted by the weights that have one entry each (biases, normalizations); tensors
    because each has a record in the file, however small it becomes, until its block leaves.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        blocks: Those that may leave.
        convert: Writes files of models.
        format: Of the files.
        dense: The model's own files: the fit is right about the one of the format.
        seed: Of the nets that are drawn.

    Returns:
        A function of kept units and present blocks -> bytes.

    Raises:
        RunFailed: A net could not be converted.
    """
    costs = CostModel.of(coupling)
    kept = some_choices(allowed, NETS, seed)
    dropped: list[tuple[Block, ...]] = [()] * NETS
    if blocks:
        kept = np.concatenate([kept, some_choices(allowed, SHALLOW, seed)])
        dropped += _some_of(blocks, seed)
    present = np.stack([presence(coupling, left) for left in dropped])
    with tempfile.TemporaryDirectory() as folder:
        files = convert(thinner_nets(coupling, kept, dropped), Path(folder), format)
        missing = [item for item in files if isinstance(item, str)]
        if missing:
            raise RunFailed(f"A thinner net could not be converted to {format}: {missing[0]}")
        sizes = np.array([Path(item).stat().st_size for item in files], np.float64)
    sizes += [dense.beside_of(format, int(count)) for count in costs.variables(kept, present)]
    counted = [costs.params, costs.vectors, *([costs.variables] if blocks else [])]

    def columns(counts: Any, present: Any) -> npt.NDArray[np.float64]:
        found = [np.asarray(count(counts, present)) for count in counted]
        return np.stack([np.ones_like(found[0]), *found], -1)

    from scipy.optimize import nnls

    design = columns(kept, present)
    # a column may be all zeros: a model without biases
    scale = np.maximum(design.max(0), 1.0)
    found = nnls(design / scale, sizes)[0] / scale
    error = dense.sizes[format] - float(columns(coupling.whole, None) @ found)

    def size(counts: Any, present: Any = None) -> npt.NDArray[np.float64]:
        return np.asarray(columns(counts, present) @ found + error)

    return size


def _some_of(blocks: Sequence[Block], seed: int) -> list[tuple[Block, ...]]:
    """Draws which blocks leave: all of them, then about half."""
    flags = np.random.default_rng(seed).random((SHALLOW, len(blocks))) < 0.5
    flags[0] = True
    return [
        tuple(block for block, leaves in zip(blocks, row, strict=True) if leaves) for row in flags
    ]
