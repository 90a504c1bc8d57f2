"""Sizes of files as a function of widths and blocks, fitted to some files that were made."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import RunFailed
from compress.measure.latency_table.measuring import Convert
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.costs import CostModel
from compress.prune.channels.selection.measured_times import some_choices, thinner_nets

if TYPE_CHECKING:
    from compress.prune.channels.coupling.groups import Coupling
    from compress.prune.channels.selection.solver import Allowed

NETS = 6
"""Files that are made for the fit: what they tell has three unknowns."""


def file_sizes_of(
    coupling: Coupling, allowed: Allowed, convert: Convert, format: str, whole: int, seed: int
) -> Priced:
    """Fits the bytes of a file: so many, a share for each parameter, a share for each channel.

    Operators of blocks that leave are not told apart from parameters: what that makes wrong is
    small, and is put right by the file of the choice itself.

    Args:
        coupling: Of the model.
        allowed: Which totals the groups may have.
        convert: Writes files of models.
        format: Of the files.
        whole: Bytes of the model's own file, as it is shipped: the fit is right about it.
        seed: Of the nets that are drawn.

    Returns:
        A function of kept units and present blocks -> bytes.

    Raises:
        RunFailed: A net could not be converted.
    """
    params = CostModel.of(coupling).params
    kept = some_choices(allowed, NETS, seed)
    with tempfile.TemporaryDirectory() as folder:
        files = convert(thinner_nets(coupling, kept), Path(folder), format)
        missing = [item for item in files if isinstance(item, str)]
        if missing:
            raise RunFailed(f"A thinner net could not be converted to {format}: {missing[0]}")
        sizes = np.array([Path(item).stat().st_size for item in files], np.float64)

    def columns(counts: Any, present: Any) -> npt.NDArray[np.float64]:
        counted = np.asarray(params(counts, present))
        channels = np.broadcast_to(np.asarray(counts, np.float64).sum(-1), counted.shape)
        return np.stack([np.ones_like(counted), counted, channels], -1)

    from scipy.optimize import nnls

    design = columns(kept, None)
    scale = design.max(0)
    found = nnls(design / scale, sizes)[0] / scale
    own = float(columns(coupling.whole, None) @ found)

    def size(counts: Any, present: Any = None) -> npt.NDArray[np.float64]:
        # files for timing hold fewer names than those that are shipped
        return np.asarray(columns(counts, present) @ found + (whole - own))

    return size
