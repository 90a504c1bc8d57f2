"""Hashes that recognize examples across files, seeds and scalings.

An image is recognized by a hash of its quantized values. A single table row is not recognizable
once its scale is unknown. So some rows of one table are searched for in the other; from the matches
the scales of all columns are computed, and then every row can be compared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, count_examples, list_arrays

NUM_STEPS = 31
"""Number of quantization steps for the values of an image channel."""
STEP_OFFSET = 0.6180339887
"""Offset of the quantization steps.

Values are fractions k/m with m up to 255, and this number is far from all of them: rounding of the
same pixels in another scale does not move a value across a step.
"""
MIN_IMAGE_VALUES = 64
"""Smallest number of values per channel that is quantized; smaller examples are hashed exactly."""
CHUNK_VALUES = 1 << 22
_MIX_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd factor with bits in all positions, which combines the hashes of several arrays."""
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
NUM_REFERENCE_ROWS = 256
"""Number of rows to search for. A scale is found if at least `MIN_MATCHES` of them match."""
MIN_MATCHES = 6
MAX_COLUMNS = 4096
STEPS_PER_SPREAD = 128
"""Steps per spread of a column; float32 rounding is far below one step, other rows far above."""
GRID_OFFSETS = (0.2360679, 0.7360679)
"""Two grids: a value at the edge of a step in one is in the middle of a step in the other."""
_EXACT_RESIDUAL, _NEAR_RESIDUAL = 1e-3, 3e-2
"""Residuals of exact and of near matches, in spreads.

A matched row differs by less than the first in every column; rows that are similar by chance differ
by up to the second or more.
"""
_QUANTILE_RANGE = 2.5631
"""The normal's 90 % quantile minus its 10 % quantile, in standard deviations."""
_RANK_TOLERANCE = 1e-3
"""Singular values below this share of the largest one are rounding errors."""
_MAX_ROUNDS = 12
_CHUNK_NUMBERS = 2**24
_QUANTILE_ROWS = 20_000
"""Number of rows used to compute quantiles."""
_MAX_MULTIPLICATIONS = 5e7
"""Multiplications per iteration; of larger tables only some rows are used."""


def hash_examples(x: Columns) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each example.

    Images that differ by a factor or an offset per channel (bytes, [0, 1], standardized) have the
    same hash; rows of features have the same hash if their float32 values are equal. Different
    examples collide with a probability of 5e-20 per pair, unless they are equal after each channel
    is quantized to `NUM_STEPS` steps between its minimum and maximum.

    Args:
        x: Raw examples, shape (n, ...), numbers; several arrays by name are hashed together.

    Returns:
        (n,), in the order of the examples.
    """
    if isinstance(x, Mapping):
        combined = np.zeros(count_examples(x), np.uint64)
        for _, values in sorted(x.items()):
            with np.errstate(over="ignore"):
                combined = combined * _MIX_FACTOR + hash_examples(values)
        return combined
    keys = np.empty(len(x), np.uint64)
    size = max(1, CHUNK_VALUES // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size]).astype(np.float32)
        rows = part.reshape(len(part), -1) + 0.0  # -0.0 becomes 0.0
        steps = _quantize_channels(part) if is_scale_invariant(part.shape[1:]) else None
        for index, row in enumerate(rows):
            # all images of one colour would get the same hash
            is_constant = steps is None or not steps[index].any()
            content = row.tobytes() if is_constant or steps is None else steps[index].tobytes()
            keys[start + index] = int.from_bytes(
                hashlib.blake2b(content, digest_size=8).digest(), "little"
            )
    return keys


def is_among(keys: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return a mask of the keys that occur in `others`, (n,)."""
    # the default method overflows for large numbers in NumPy 2.0
    return np.asarray(np.isin(keys, others, kind="sort"))


def is_scale_invariant(shape: tuple[int, ...]) -> bool:
    """Return whether examples of a shape are recognized in any scale of their channels.

    Args:
        shape: Shape of one example.
    """
    return len(shape) >= 2 and int(np.prod(shape[:-1])) >= MIN_IMAGE_VALUES


def as_rows(x: Columns) -> list[Rows] | None:
    """Return examples as matrices (n, columns) to be read side by side, or None for other data.

    None is returned for images, and for more than `MAX_COLUMNS` columns in total.

    Args:
        x: Examples (n, ...), or several such arrays by name.
    """
    values = [x[name] for name in sorted(x)] if isinstance(x, Mapping) else list_arrays(x)
    width = sum(int(np.prod(array.shape[1:])) for array in values)
    if width > MAX_COLUMNS or any(is_scale_invariant(array.shape[1:]) for array in values):
        return None
    return [array.reshape(len(array), -1) for array in values]


@dataclass(frozen=True)
class RowSketch:
    """Sketch of a table that recognizes its rows under other scales of the columns.

    Attributes:
        rows: A sample of the rows, (m, columns), float32.
        centre: Median of each column, (columns,).
        spread: Standard deviation of a normal distribution with the 10 % and 90 % quantiles of the
            column, which is robust to a few large values; the standard deviation if these quantiles
            are equal; 0: the column is constant.
        low, high: Minimum and maximum of each column.
    """

    rows: npt.NDArray[np.float32]
    centre: Floats
    spread: Floats
    low: Floats
    high: Floats

    @classmethod
    def from_rows(cls, rows: list[Rows]) -> RowSketch:
        """Return the sketch of a table.

        Args:
            rows: Matrices from `as_rows`, with at least one row.
        """
        low: Floats = np.full(sum(part.shape[1] for part in rows), math.inf)
        high: Floats = -low
        for part in _iter_chunks(rows):
            low, high = np.minimum(low, part.min(0)), np.maximum(high, part.max(0))
        total = count_examples(rows[0])
        sample_size = max(NUM_REFERENCE_ROWS, min(_QUANTILE_ROWS, int(_CHUNK_NUMBERS / high.size)))
        sample = _stack_columns(rows, _select_evenly(total, sample_size))
        low_quantile, centre, high_quantile = np.quantile(sample, [0.1, 0.5, 0.9], axis=0)
        spread = np.where(
            high_quantile > low_quantile,
            (high_quantile - low_quantile) / _QUANTILE_RANGE,
            sample.std(0),
        )
        # rounding gives constant columns a small spread
        spread = np.where(low < high, spread, 0.0)
        return cls(
            sample[_select_evenly(len(sample), NUM_REFERENCE_ROWS)].astype(np.float32),
            centre,
            spread,
            low,
            high,
        )

    @property
    def varying_columns(self) -> npt.NDArray[np.bool_]:
        """Mask of the columns that vary; constant columns carry no information."""
        return self.spread > 0

    def hash_rows(
        self, rows: list[Rows], scale: tuple[Floats, Floats] | None = None
    ) -> npt.NDArray[np.uint64]:
        """Return two hashes per row, (2, n); two rows are equal if either hash is equal.

        Args:
            rows: Matrices from `as_rows`.
            scale: Gain and offset of each column, which convert to the units of this table; None:
                the rows are already in these units.
        """
        factors = np.random.default_rng(0).integers(2**63, size=self.spread.size, dtype=np.uint64)
        factors = factors[self.varying_columns] * np.uint64(2) + np.uint64(1)
        hashes = []
        for part in _iter_chunks(rows):
            steps = self._standardize(part, scale)[:, self.varying_columns] * STEPS_PER_SPREAD
            for offset in GRID_OFFSETS:
                cells = np.clip(np.floor(steps + offset), -(2.0**62), 2.0**62)
                hashes.append((cells.astype(np.int64).view(np.uint64) * factors).sum(1))
        stacked: npt.NDArray[np.uint64] = np.stack(
            [np.concatenate(hashes[grid :: len(GRID_OFFSETS)]) for grid in range(len(GRID_OFFSETS))]
        )
        return stacked

    def estimate_collision_probability(self) -> float:
        """Return the approximate probability that two different rows have the same hash.

        The probability is the product over the least informative columns, as many as are linearly
        independent: rows on a line get the hashes of other rows if they are shifted along it.
        """
        values = self._standardize(self.rows, None)[:, self.varying_columns]
        if not values.size:
            return 1.0
        # for a column without equal values, use the probability of a normal distribution
        min_probability = 1 / (2 * math.sqrt(math.pi) * STEPS_PER_SPREAD)
        pairs = max(1, len(values) * (len(values) - 1))
        probabilities = []
        for column in np.floor(values * STEPS_PER_SPREAD).T:
            counts = np.unique(column, return_counts=True)[1].astype(np.float64)
            probabilities.append(max(min_probability, float((counts * (counts - 1)).sum()) / pairs))
        rank = int(np.linalg.matrix_rank(values - values.mean(0), rtol=_RANK_TOLERANCE))
        return min(1.0, len(GRID_OFFSETS) * math.prod(sorted(probabilities, reverse=True)[:rank]))

    def find_scale(self, rows: list[Rows]) -> tuple[Floats, Floats] | None:
        """Return gain and offset of each column that map other rows to the units of this table.

        Each row of the sketch is paired with its nearest row, the scales are fitted to the closest
        pairs, and this is repeated until the pairs agree up to rounding.

        Args:
            rows: Rows of the other table, matrices from `as_rows`.

        Returns:
            Gain (above 0) and offset, (columns,) each; None if too few rows match.

        Reference:
            Besl & McKay 1992, "A method for registration of 3-D shapes": iterated closest points.
            Deviation: only the closest pairs are used, since most rows may have no match.
        """
        has_same_columns = sum(part.shape[1] for part in rows) == self.spread.size
        if not has_same_columns or min(len(self.rows), len(rows[0])) < MIN_MATCHES:
            return None
        max_rows = max(
            len(self.rows), int(_MAX_MULTIPLICATIONS / len(self.rows) / self.spread.size)
        )
        if len(rows[0]) > max_rows:
            rows = [part[:: -(-len(part) // max_rows)] for part in rows]
        other = RowSketch.from_rows(rows)
        shared = self.varying_columns & other.varying_columns  # constant columns have no scale
        if shared.sum() < 2:
            return None
        for estimate in (
            (self.spread, other.spread, self.centre, other.centre),
            (self.high - self.low, other.high - other.low, self.low, other.low),
        ):
            target_spread, source_spread, target_origin, source_origin = estimate
            gain = np.where(
                shared, target_spread / np.where(source_spread > 0, source_spread, 1), 1.0
            )
            scale = self._refine_scale(
                rows, gain, target_origin - gain * source_origin, shared, other
            )
            if scale is not None:
                return scale
        return None

    def _refine_scale(
        self, rows: list[Rows], gain: Floats, offset: Floats, shared: npt.NDArray[np.bool_],
        other: RowSketch,
    ) -> tuple[Floats, Floats] | None:  # fmt: skip
        """Fit the scales to pairs of nearest rows until they agree."""
        sketch_rows = self.rows.astype(np.float64)
        best_distance, most_exact = math.inf, 0
        scale: tuple[Floats, Floats] | None = None
        # columns with few values: use the ranges of both tables
        default_gain = np.where(shared, self.high - self.low, 1.0) / np.where(
            shared, other.high - other.low, 1.0
        )
        for _ in range(_MAX_ROUNDS):
            index, distance = self._find_nearest(rows, (gain, offset), shared)
            nearest = np.sort(distance)
            is_near = distance <= max(2 * nearest[MIN_MATCHES - 1], 1e-9)
            partners = _stack_columns(rows, index)
            gain, offset = _fit_columns(
                partners[is_near], sketch_rows[is_near], other.spread, default_gain
            )
            residual = np.abs(
                (partners * gain + offset - sketch_rows) / np.where(shared, self.spread, 1.0)
            )
            residual = residual[:, shared].max(1)
            exact, near = (
                int((residual < _EXACT_RESIDUAL).sum()),
                int((residual < _NEAR_RESIDUAL).sum()),
            )
            if exact >= MIN_MATCHES and exact >= 0.5 * near:
                if exact <= most_exact:
                    return scale
                is_exact = residual < _EXACT_RESIDUAL
                scale = _fit_columns(
                    partners[is_exact], sketch_rows[is_exact], other.spread, default_gain
                )
                # refit: columns that were constant in the first pairs may vary in more pairs
                most_exact, (gain, offset) = exact, scale
                continue
            if nearest[MIN_MATCHES - 1] >= 0.999 * best_distance:
                return scale
            best_distance = nearest[MIN_MATCHES - 1]
        return scale

    def _find_nearest(
        self, rows: list[Rows], scale: tuple[Floats, Floats], shared: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the index and distance of the nearest row to each row of the sketch."""
        sketch_values = self._standardize(self.rows, None)[:, shared].astype(np.float32)
        # one matrix product: `find_scale` limits the number of rows
        row_values = self._standardize(_stack_columns(rows, slice(None)), scale)[:, shared].astype(
            np.float32
        )
        distances = (
            np.square(sketch_values).sum(1)[:, None]
            - 2 * sketch_values @ row_values.T
            + np.square(row_values).sum(1)
        )
        index = distances.argmin(1)
        nearest = distances[np.arange(len(sketch_values)), index]
        return index, np.sqrt(np.maximum(nearest, 0.0)).astype(np.float64)

    def _standardize(self, part: Rows, scale: tuple[Floats, Floats] | None) -> Floats:
        values = part.astype(np.float64)
        if scale is not None:
            values = values * scale[0] + scale[1]
        return np.asarray((values - self.centre) / np.where(self.varying_columns, self.spread, 1.0))


@dataclass(frozen=True)
class RowMatcher:
    """Known rows of a table, recognized under other scales of its columns.

    Attributes:
        sketch: Sketch of the table.
        keys: Hashes of the known rows, (2, m), from `RowSketch.hash_rows`.
    """

    sketch: RowSketch
    keys: npt.NDArray[np.uint64]

    def match(self, parts: Mapping[str, Columns]) -> dict[str, npt.NDArray[np.bool_]]:
        """Return a mask per part of the examples that are known rows in another scale.

        Args:
            parts: Examples by part. If the scale of a part cannot be found because it has few known
                rows, the scale of another part is used.

        Returns:
            Masks, (n,), by part; without parts that are not tables, have the scale of the known
            rows, or are of unknown scale.
        """
        tables = {name: rows for name, x in parts.items() if (rows := as_rows(x)) is not None}
        scales = {name: self.sketch.find_scale(rows) for name, rows in tables.items()}
        common = next((scale for scale in scales.values() if scale is not None), None)
        matches = {}
        for name, rows in tables.items():
            scale = scales[name] or common
            if scale is None or is_identity(scale, self.sketch):
                continue
            first, second = self.sketch.hash_rows(rows, scale)
            matches[name] = is_among(first, self.keys[0]) | is_among(second, self.keys[1])
        return matches


def is_identity(scale: tuple[Floats, Floats], sketch: RowSketch) -> bool:
    """Return whether a scale changes values only by rounding.

    Args:
        scale: Gain and offset of each column, (columns,) each.
        sketch: Sketch of the table whose values are scaled.
    """
    moved = np.abs(np.stack([sketch.low, sketch.high]) * (scale[0] - 1) + scale[1])
    return bool(
        (moved[:, sketch.varying_columns] <= 1e-3 * sketch.spread[sketch.varying_columns]).all()
    )


def _quantize_channels(part: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the quantization step of each value within its channel's range, from 0."""
    positions = part.reshape(len(part), -1, part.shape[-1])
    low = _reduce_positions(np.minimum, positions)
    span = _reduce_positions(np.maximum, positions) - low
    shares = (positions - low) / np.where(span > 0, span, 1)
    steps = np.floor(shares * NUM_STEPS + STEP_OFFSET).astype(np.uint8)
    return np.asarray(steps.reshape(part.shape))


def _reduce_positions(ufunc: np.ufunc, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the minimum or maximum over positions, (n, 1, channels).

    NumPy's own is five times slower for three channels: its inner loop is over these.

    Args:
        ufunc: `np.minimum` or `np.maximum`.
        values: (n, positions, channels).
    """
    while values.shape[1] > 1:
        half = -(-values.shape[1] // 2)
        values = ufunc(values[:, :half], values[:, -half:])
    return values


def _fit_columns(
    partners: Floats, targets: Floats, spread: Floats, default_gain: Floats
) -> tuple[Floats, Floats]:
    """Return the gain and offset of the least-squares line of each column.

    Args:
        partners: Rows in the units of the other table, (pairs, columns).
        targets: The rows that they are paired with, (pairs, columns).
        spread: Spread of the columns of the other table, (columns,).
        default_gain: Gain for columns that hardly vary among these pairs, (columns,).
    """
    partner_mean, target_mean = partners.mean(0), targets.mean(0)
    centred = partners - partner_mean
    squares = np.square(centred).sum(0)
    has_variance = squares > 1e-6 * len(partners) * np.square(spread)
    slope = (centred * (targets - target_mean)).sum(0) / np.where(has_variance, squares, 1.0)
    gain = np.where(has_variance & (slope > 0), slope, default_gain)
    return gain, target_mean - gain * partner_mean


def _select_evenly(total: int, sample_size: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, total - 1, min(sample_size, total)).astype(np.int64)


def _stack_columns(rows: list[Rows], index: Any) -> Floats:
    return np.concatenate([np.asarray(part[index], np.float64) for part in rows], axis=1)


def _iter_chunks(rows: list[Rows]) -> Iterator[Floats]:
    total, width = count_examples(rows[0]), sum(part.shape[1] for part in rows)
    size = max(1, _CHUNK_NUMBERS // max(1, width * 8))
    for start in range(0, total, size):
        yield _stack_columns(rows, slice(start, start + size))
