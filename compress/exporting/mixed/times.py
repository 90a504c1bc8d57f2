"""What each layer's precision costs in time, from a few files that are timed against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.exporting.conversions import ConversionFailed
from compress.exporting.mixed.units import Unit
from compress.measure.latency import measure_latency
from compress.plan import LatencyOptions

TIMING = LatencyOptions(precision=0.05, budget=4.0)
"""Of whole files against each other, one thread."""


class Makes(Protocol):
    """What makes files of levels; see `compress.exporting.mixed.search.Files`."""

    source: Path
    units: tuple[Unit, ...]

    def made(self, levels: Mapping[Unit, str]) -> Path:
        """Returns the file whose units have these levels."""
        ...


def unit_times(files: Makes, levels: Sequence[str], had: npt.NDArray[np.bool_]) -> Any:
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
    everywhere = {level: _levels(files.units, level, had[:, at]) for at, level in enumerate(levels)}
    timed = _times(files, everywhere)
    base = min(timed, key=lambda level: timed[level])
    kinds = dict.fromkeys(unit.kinds[0] for unit in files.units)
    swapped = {
        f"{kind} {level}": {
            unit: level if unit.kinds[0] == kind and unit in everywhere[level] else own
            for unit, own in _whole(files.units, everywhere[base]).items()
        }
        for kind in kinds for level in levels if level != base
    }  # fmt: skip
    found = _times(files, {base: everywhere[base], **swapped})
    result = np.zeros((len(files.units), len(levels)))
    for row, unit in enumerate(files.units):
        kind = unit.kinds[0]
        macs = sum(other.macs for other in files.units if other.kinds[0] == kind)
        for column, level in enumerate(levels):
            # a file that cannot be made takes as long as the slowest
            more = found.get(f"{kind} {level}", max(found.values())) - found[base]
            if level != base and macs:
                result[row, column] = more * unit.macs / macs
    return result


def _levels(units: Sequence[Unit], level: str, had: npt.NDArray[np.bool_]) -> dict[Unit, str]:
    return {unit: level for unit, ok in zip(units, had, strict=True) if ok}


def _whole(units: Sequence[Unit], levels: Mapping[Unit, str]) -> dict[Unit, str]:
    return {unit: levels.get(unit, "float32") for unit in units}


def _times(files: Makes, wanted: Mapping[str, Mapping[Unit, str]]) -> dict[str, float]:
    """Returns the times of files by name, as shares of the float32 file's."""
    paths = {"": files.source}
    for name, levels in wanted.items():
        try:
            paths[name] = files.made(levels)
        except ConversionFailed:
            continue  # units have these levels one by one, or are known to have not
    timed = measure_latency(paths, TIMING)
    return {name: item.quiet_ms / timed[""].quiet_ms for name, item in timed.items() if name}
