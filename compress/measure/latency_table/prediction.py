"""Latency of models that were not measured, from measured times of their calls.

Times are interpolated linearly between measured channel counts, among output channel counts of the
same alignment. Kernels work in tiles of 8, 16 or 32 output channels, so 36 channels take about as
long as 64, and interpolating between 32 and 48 would be wrong. So output channel counts are
interpolated among those with the same largest power of two as a divisor. Input channels only
lengthen the loop over a tile, so there all measured counts are interpolated together. For the same
reason the time at fewer input channels is an affine function of the time at all of them, and two
output channel counts tell it.

The latency of a model differs from the sum of its calls. A call that is timed alone keeps its
weights in the nearest cache. In a model the weights compete for the cache, and the part that does
not fit is loaded again in each inference: the excess grows with the bytes of all weights beyond a
threshold (0.5 to 0.9 MB, by 25 to 37 us per MB, on the one machine that was examined, with 2 MB of
second-level cache per core; that the cache is the cause is an assumption). On the other hand, each
call that is timed alone pays for overhead (copies at the borders of a delegate) that a model pays
only once; a constant factor corrects for it. Factor, slope and threshold are fitted to some models
that were measured as whole files.
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
Indices = npt.NDArray[np.int64]
TILE = 32
"""Largest tile size of kernels; higher powers of two bring no further gain."""
MAX_MEASURED = 16
"""Largest number of channel counts that are all measured; of more only some are."""
ALIGNED = 5
"""Measured channel counts of the best alignment, if there are more than `MAX_MEASURED`."""
FEW = 3
"""Measured counts of input channels."""
BEYOND = 0.5
"""How far completed times may lie beyond the ends of their line, as a share of their difference: a
count may take longer than a larger one, and noise of a flat line must not be magnified."""
MIN_MODELS = 4


def compute_alignment(channel_count: int) -> int:
    """Return the largest power of two up to `TILE` that divides a channel count."""
    return min(TILE, channel_count & -channel_count)


def select_channel_counts(channel_counts: Sequence[int], most: int = MAX_MEASURED) -> list[int]:
    """Return the indices of the channel counts to measure.

    Args:
        channel_counts: All possible channel counts, ascending.
        most: With at most this many counts all are measured. Otherwise `ALIGNED` counts of the best
            alignment, and the smallest and largest count of each other alignment, so that nothing
            is extrapolated.
    """
    if len(channel_counts) <= most:
        return list(range(len(channel_counts)))
    indices_by_alignment: dict[int, list[int]] = {}
    for index, channel_count in enumerate(channel_counts):
        indices_by_alignment.setdefault(compute_alignment(channel_count), []).append(index)
    picked: set[int] = set()
    for alignment, indices in indices_by_alignment.items():
        picked.update(
            indices[position]
            for position in select_evenly(
                len(indices), ALIGNED if alignment == max(indices_by_alignment) else 2
            )
        )
    return sorted(picked)


def select_evenly(count: int, most: int = FEW) -> list[int]:
    """Return up to `most` evenly spaced indices from 0 to count - 1, including both ends."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, most))})


def build_interpolation_matrix(
    channel_counts: Sequence[int], picked: Sequence[int], *, tiled: bool = True
) -> Numbers:
    """Return the matrix that maps measured times to times at all channel counts.

    Args:
        channel_counts: All channel counts, ascending.
        picked: Indices of the measured channel counts. They include the first and last count of
            each alignment if `tiled`, else the first and last of all.
        tiled: Whether to interpolate only among channel counts of the same alignment.

    Returns:
        Matrix of shape (channel counts, picked); each row sums to 1.
    """
    matrix = np.zeros((len(channel_counts), len(picked)))
    for row, channel_count in enumerate(channel_counts):
        columns = [
            column
            for column, index in enumerate(picked)
            if not tiled
            or compute_alignment(channel_counts[index]) == compute_alignment(channel_count)
        ]
        at = [channel_counts[picked[column]] for column in columns]
        matrix[row, columns] = [np.interp(channel_count, at, unit) for unit in np.eye(len(at))]
    return matrix


def complete_table(table: Numbers, full_axis: int) -> Numbers:
    """Fill in a table of which one line and the ends of all lines are measured.

    The other lines are affine functions of the measured one, fitted to their ends: a loop over
    tiles takes f(outputs) x (a + b x inputs) + c(inputs), which this reproduces exactly. Entries
    stay near the ends of their line, also if the measured line is as good as flat.

    Args:
        table: (n, m) table; entries that are not measured are NaN.
        full_axis: Axis along which the last line of the other axis is measured in full.

    Returns:
        The table without NaN.

    Example:
        >>> complete_table(np.array([[1.0, np.nan, 5.0], [2.0, 4.0, 10.0]]), 1)
        array([[ 1.,  2.,  5.],
               [ 2.,  4., 10.]])
    """
    lines = np.array(np.moveaxis(table, full_axis, 1))
    full, first, last = lines[-1], lines[:, :1], lines[:, -1:]
    if full[-1] != full[0]:
        share = np.clip((full - full[0]) / (full[-1] - full[0]), -BEYOND, 1.0 + BEYOND)
    else:
        share = np.linspace(0.0, 1.0, len(full))
    lines = np.where(np.isnan(lines), first + (last - first) * share, lines)
    return np.asarray(np.moveaxis(lines, 1, full_axis))


def find_intervals(values: Numbers, at: Numbers) -> tuple[Indices, Numbers]:
    """Return the interval that contains each value: index of its lower end, and the fraction.

    Args:
        values: Values within the range of `at`, (...).
        at: Ends of the intervals, ascending, (n,). With one number all fractions are 0.

    Returns:
        Indices (...), and fractions in [0, 1] (...).
    """
    below = np.clip(np.searchsorted(at, values, side="right") - 1, 0, max(0, len(at) - 2))
    if len(at) == 1:
        return below, np.zeros(np.shape(values))
    return below, (values - at[below]) / (at[below + 1] - at[below])


def interpolate_table(table: Numbers, positions: Sequence[tuple[Indices, Numbers]]) -> Numbers:
    """Return values between the entries of a table, linear along each axis.

    Args:
        table: Table with one axis per entry of `positions`; without positions a scalar.
        positions: Indices and fractions from `find_intervals`, all of the same shape (...).

    Returns:
        Interpolated values, (...).
    """
    total: Numbers = np.zeros(())
    for corner in product((0, 1), repeat=len(positions)):
        indices = []
        weight: Numbers = np.ones(())
        for side, (below, share), size in zip(corner, positions, table.shape, strict=True):
            indices.append(np.minimum(below + side, size - 1))
            weight = weight * (share if side else 1.0 - share)
        total = total + weight * table[tuple(indices)]
    return np.asarray(total)


@dataclass(frozen=True)
class Calibration(Record):
    """Correction from call times to the time of a model.

    The time is `factor` x sum of call times + `per_byte` x bytes of weights beyond `beyond`.

    Attributes:
        factor: Factor of the sum, above 0.
        per_byte: Milliseconds per byte of weights, at least 0.
        beyond: Threshold in bytes, at least 0.
        nets: Number of models in the fit; 0: no correction.
        error: Mean absolute relative error in leave-one-out cross-validation.
    """

    factor: float = 1.0
    per_byte: float = 0.0
    beyond: float = 0.0
    nets: int = 0
    error: float = 0.0

    def predict_weights_ms(self, weight_bytes: npt.NDArray[Any]) -> Numbers:
        """Return the extra milliseconds for weights that exceed the cache, elementwise."""
        return np.asarray(self.per_byte * np.maximum(0.0, weight_bytes - self.beyond))


def calibrate(
    sums: npt.NDArray[Any], weight_bytes: npt.NDArray[Any], measured: npt.NDArray[Any]
) -> Calibration:
    """Return the correction with the least squared relative error.

    Args:
        sums: Sum of the call times of each model in ms, (models,), above 0.
        weight_bytes: Bytes of each model's weights, (models,).
        measured: Time of each model as a whole file in ms, (models,), above 0.

    Raises:
        InputError: There are fewer than four models, or times are not above 0.
    """
    call_sums, weight_sizes, times = (
        np.asarray(values, np.float64) for values in (sums, weight_bytes, measured)
    )
    if len(times) < MIN_MODELS or not (times > 0).all() or not (call_sums > 0).all():
        raise InputError(
            f"measured must be the times of at least {MIN_MODELS} nets, all above 0. "
            f"Received: {times.tolist()} (by their calls: {call_sums.tolist()})."
        )
    factor, per_byte, beyond = _fit_calibration(call_sums / times, weight_sizes, times)
    errors = []
    for left_out in range(len(times)):
        others = np.arange(len(times)) != left_out
        fold_factor, slope, start = _fit_calibration(
            (call_sums / times)[others], weight_sizes[others], times[others]
        )
        predicted = fold_factor * call_sums[left_out] + slope * max(
            0.0, weight_sizes[left_out] - start
        )
        errors.append(abs(predicted / times[left_out] - 1.0))
    return Calibration(factor, per_byte, beyond, len(times), float(np.mean(errors)))


def _fit_calibration(
    relative: Numbers, weight_sizes: Numbers, times: Numbers
) -> tuple[float, float, float]:
    """Return factor, slope and threshold of least error; slope 0 if there is no excess."""
    factor = float(relative.sum() / (relative @ relative))
    best = (float(((factor * relative - 1.0) ** 2).sum()), factor, 0.0, 0.0)
    # least squares is linear for a fixed threshold: search a grid of thresholds
    for beyond in np.linspace(0.0, weight_sizes.max(), 65)[:-1]:
        columns = np.stack([relative, np.maximum(0.0, weight_sizes - beyond) / times], 1)
        (factor, slope), *_ = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)
        error = float(((columns @ (factor, slope) - 1.0) ** 2).sum())
        if factor > 0.0 and slope >= 0.0:
            best = min(best, (error, float(factor), float(slope), float(beyond)))
    return best[1], best[2], best[3]
