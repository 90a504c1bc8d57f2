"""Times of nets that were not measured, from times of calls that were.

Between measured widths times are piecewise linear, among widths of one alignment: kernels work in
tiles of 8, 16 or 32 output channels, so 36 channels take about what 64 do, and a line from 32 to 48
would not tell. Output widths are interpolated among those that the same power of two divides. Along
input channels a tile's loop only runs longer: there a line tells.

What whole nets take is not the sum of their calls. A call that is timed alone has its weights in
the nearest cache. In a net all weights take their turn, and what the cache does not hold comes anew
in each inference: the excess grows with the bytes of all weights beyond a threshold (0.5 to 0.9 MB,
by 25 to 37 us a MB, on the one machine that was looked at, with 2 MB of second-level cache a core;
that the cache is the cause is a guess). On the other hand a net pays what lies around a call
(copies at the borders of what a delegate runs) once, each call alone too: that is a factor. All are
fitted to some nets measured whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.run.records import Record

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
FEWEST_NETS = 4


def alignment(width: int) -> int:
    """Return the largest power of two up to `TILE` that divides a width."""
    return min(TILE, width & -width)


def thinned(widths: Sequence[int], most: int = MOST) -> list[int]:
    """Return the places of the widths that are measured.

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
    """Return so many of the places 0 to count - 1, the first and the last among them."""
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, most))})


def spreading(widths: Sequence[int], picked: Sequence[int], *, tiled: bool = True) -> Numbers:
    """Return the matrix that interpolates: measured times -> times at all widths.

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
    """Return between which of some rising numbers others lie: the place below, and the share.

    Args:
        values: (...), within `at`.
        at: (n,), rising; of a single number the share is 0.
    """
    below = np.clip(np.searchsorted(at, values, side="right") - 1, 0, max(0, len(at) - 2))
    if len(at) == 1:
        return below, np.zeros(np.shape(values))
    return below, (values - at[below]) / (at[below + 1] - at[below])


def multilinear(table: Numbers, where: Sequence[tuple[Places, Numbers]]) -> Numbers:
    """Return values between the entries of a table, linear along each axis.

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


@dataclass(frozen=True)
class Calibration(Record):
    """A net's time from its calls': `factor` x their sum + `per_byte` x bytes beyond `beyond`.

    Attributes:
        factor: Above 0.
        per_byte: Milliseconds a byte of weights, at least 0.
        beyond: Bytes, at least 0.
        nets: Nets that it was fitted to; 0: nothing was fitted, the sum of calls is all.
        error: Mean absolute relative error of the time of nets that the fit has not seen: each
            was left out once.
    """

    factor: float = 1.0
    per_byte: float = 0.0
    beyond: float = 0.0
    nets: int = 0
    error: float = 0.0

    def weights_ms(self, weight_bytes: npt.NDArray[Any]) -> Numbers:
        """Return the cost of weights beside the calls in ms, elementwise."""
        return np.asarray(self.per_byte * np.maximum(0.0, weight_bytes - self.beyond))


def calibrate(
    sums: npt.NDArray[Any], weight_bytes: npt.NDArray[Any], measured: npt.NDArray[Any]
) -> Calibration:
    """Fit by least squares of relative errors.

    Args:
        sums: Times of nets by their calls in ms, (nets,), above 0.
        weight_bytes: Of their weights, (nets,).
        measured: Times of the nets as a whole in ms, (nets,), above 0.

    Raises:
        InputError: There are fewer than four nets, or times are not above 0.
    """
    added, held, times = (
        np.asarray(values, np.float64) for values in (sums, weight_bytes, measured)
    )
    if len(times) < FEWEST_NETS or not (times > 0).all() or not (added > 0).all():
        raise InputError(
            f"measured must be the times of at least {FEWEST_NETS} nets, all above 0. "
            f"Received: {times.tolist()} (by their calls: {added.tolist()})."
        )
    factor, per_byte, beyond = _fitted(added / times, held, times)
    errors = []
    for left in range(len(times)):
        others = np.arange(len(times)) != left
        one, slope, start = _fitted((added / times)[others], held[others], times[others])
        found = one * added[left] + slope * max(0.0, held[left] - start)
        errors.append(abs(found / times[left] - 1.0))
    return Calibration(factor, per_byte, beyond, len(times), float(np.mean(errors)))


def _fitted(relative: Numbers, held: Numbers, times: Numbers) -> tuple[float, float, float]:
    """Return factor, slope and threshold of least error; no slope where no excess grows."""
    factor = float(relative.sum() / (relative @ relative))
    best = (float(((factor * relative - 1.0) ** 2).sum()), factor, 0.0, 0.0)
    # thresholds from no byte to the largest net's
    for beyond in np.linspace(0.0, held.max(), 65)[:-1]:
        columns = np.stack([relative, np.maximum(0.0, held - beyond) / times], 1)
        (factor, slope), *_ = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)
        error = float(((columns @ (factor, slope) - 1.0) ** 2).sum())
        if factor > 0.0 and slope >= 0.0:
            best = min(best, (error, float(factor), float(slope), float(beyond)))
    return best[1], best[2], best[3]
