"""Times between measured widths: piecewise linear among widths of one alignment.

Kernels work in tiles of 8, 16 or 32 output channels, so 36 channels take about what 64 do, and a
line from 32 to 48 would not tell: output widths are interpolated among those that the same power
of two divides. Along input channels a tile's loop only runs longer: there a line tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

TILE = 32
"""Multiples of more are aligned no better."""
MOST = 16
"""Widths that are all measured; of more some."""
ALIGNED = 5
"""Of more widths: the measured ones of the best alignment."""
FEW = 3
"""Measured ones along input channels."""


def alignment(width: int) -> int:
    """Returns the largest power of two up to `TILE` that divides a width."""
    found = 1
    while found < TILE and width % (2 * found) == 0:
        found *= 2
    return found


def thinned(widths: Sequence[int], most: int = MOST) -> list[int]:
    """Returns the places of the widths that are measured.

    Args:
        widths: All that can be asked for, rising.
        most: All are measured where they are no more. Else `ALIGNED` of the best aligned ones,
            and of each other alignment its least and its largest: nothing is extrapolated.
    """
    if len(widths) <= most:
        return list(range(len(widths)))
    classes: dict[int, list[int]] = {}
    for place, width in enumerate(widths):
        classes.setdefault(alignment(width), []).append(place)
    picked: set[int] = set()
    for name, places in classes.items():
        picked.update(places[at] for at in few(len(places), ALIGNED if name == max(classes) else 2))
    return sorted(picked)


def few(count: int, most: int = FEW) -> list[int]:
    """Returns so many of the places 0 to count - 1, the first and the last among them."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def spreading(widths: Sequence[int], picked: Sequence[int], *, tiled: bool = True) -> Numbers:
    """Returns the matrix that interpolates: measured times -> times at all widths.

    Args:
        widths: All, rising.
        picked: Places of the measured ones: the first and the last of each alignment among them,
            or, where this is not `tiled`, of all.
        tiled: Interpolate among widths of one alignment only.

    Returns:
        (widths, picked), rows add up to 1.
    """
    found = np.zeros((len(widths), len(picked)))
    for row, width in enumerate(widths):
        columns = np.array([
            column for column, place in enumerate(picked)
            if not tiled or alignment(widths[place]) == alignment(width)
        ])  # fmt: skip
        at = np.array([widths[picked[column]] for column in columns], np.float64)
        below, share = located(np.array(float(width)), at)
        found[row, columns[below]] = 1.0 - share
        if share:
            found[row, columns[below + 1]] = share
    return found


def located(values: Numbers, at: Numbers) -> tuple[Places, Numbers]:
    """Returns between which of some rising numbers others lie: the place below, and the share.

    Args:
        values: (...), within `at`.
        at: (n,), rising; of a single number the share is 0.
    """
    below = np.clip(np.searchsorted(at, values, side="right") - 1, 0, max(0, len(at) - 2))
    if len(at) == 1:
        return below, np.zeros(np.shape(values))
    return below, (values - at[below]) / (at[below + 1] - at[below])


def multilinear(table: Numbers, where: Sequence[tuple[Places, Numbers]]) -> Numbers:
    """Returns values between the entries of a table, linear along each axis.

    Args:
        table: One axis for each entry of `where`; of none it is a number.
        where: Places and shares, from `located`, all of one shape (...).

    Returns:
        (...).
    """
    total: Numbers = np.zeros(())
    for corner in product((0, 1), repeat=len(where)):
        places = []
        weight: Numbers = np.ones(())
        for side, (below, share), size in zip(corner, where, table.shape, strict=True):
            places.append(np.minimum(below + side, size - 1))
            weight = weight * (share if side else 1.0 - share)
        total = total + weight * table[tuple(places)]
    return np.asarray(total)
