"""What each layer's precision costs in time, from a few files that are timed against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.exporting.conversions import ConversionFailed
from compress.exporting.mixed.candidates import Files
from compress.exporting.mixed.units import Unit
from compress.measure.latency import measure_latency
from compress.plan import LatencyOptions

TIMING = LatencyOptions(precision=0.05, budget=4.0)
"""Of whole files against each other, one thread."""


def unit_times(files: Files, levels: Sequence[str], had: npt.NDArray[np.bool_]) -> Any:
    """Returns how much longer a run takes with a unit at each level, than at the fastest one.

    Of files of one level each the fastest is taken; then the units of one kind of kernel
    (convolutions by depth, say, which not every level has a fast one of) take each other level
    together, and share the difference by multiply-accumulates.

    Args:
        files: Makes the files.
        levels: Among which is chosen.
        had: Whether a unit (rows) can have a level (columns).

    Returns:
        Shares of the float32 file's time, (units, levels); negative: faster.
    """
    everywhere = {level: files.throughout(level, had[:, at]) for at, level in enumerate(levels)}
    timed = _times(files, everywhere)
    base = min(timed, key=lambda level: timed[level])
    macs = Counter[str]()
    for unit in files.units:
        macs[unit.kind] += unit.macs
    swapped = {
        f"{kind} {level}": everywhere[base]
        | {unit: level for unit in everywhere[level] if unit.kind == kind}
        for kind in macs for level in levels if level != base
    }  # fmt: skip
    found = _times(files, {base: everywhere[base], **swapped})
    slowest = max(found.values())
    result = np.zeros((len(files.units), len(levels)))
    for row, unit in enumerate(files.units):
        for column, level in enumerate(levels):
            if level != base and macs[unit.kind]:
                # a file that cannot be made takes as long as the slowest
                more = found.get(f"{unit.kind} {level}", slowest) - found[base]
                result[row, column] = more * unit.macs / macs[unit.kind]
    return result


def _times(files: Files, wanted: Mapping[str, Mapping[Unit, str]]) -> dict[str, float]:
    """Returns the times of files by name, as shares of the float32 file's."""
    paths = {"": files.source}
    for name, levels in wanted.items():
        try:
            paths[name] = files.made(levels)
        except ConversionFailed:
            continue  # units have these levels one by one, or are known to have not
    timed = measure_latency(paths, TIMING)
    return {name: item.quiet_ms / timed[""].quiet_ms for name, item in timed.items() if name}
