"""Hashes that recognize examples under other files, seeds and scalings.

An image is recognized by itself, by the hash of its steps. A row of a table is not: nothing of one
number is left once its scale is unknown. So some rows of one table are searched for in the other;
where they are found the scales of all columns are known, and every row can be compared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, arrays, count

LEVELS = 31
"""Steps that the values of an image's channel are told apart by."""
OFFSET = 0.6180339887
"""Where steps begin. Values are fractions k/m with m up to 255, and this number is far from all
of them: rounding of the same pixels in another scale does not move one over a step."""
LEAST_VALUES = 64
"""Channels of fewer values are hashed as they are: little else tells rows of a table apart."""
CHUNK = 1 << 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with bits all over: what keys of several arrays are mixed by."""
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[Any]
REFERENCES = 256
"""Rows that are searched for. A scale is found where `LEAST_FOUND` of them are there."""
LEAST_FOUND = 6
MOST_COLUMNS = 4096
GRID = 128
"""Steps a spread of a column. Rounding to float32 is far below one, other rows are far above."""
OFFSETS = (0.2360679, 0.7360679)
"""Two grids: a value at the edge of a step in one is in the middle of a step in the other."""
_EXACT, _NEAR = 1e-3, 3e-2
"""Spreads: a row that is found differs by less than the first in every column; rows that are
alike by chance differ by up to the second and beyond."""
_TENTHS = 2.5631
"""The normal's 90 % quantile minus its 10 % quantile, in standard deviations."""
_INDEPENDENT = 1e-3
"""Singular values below this share of the largest one are rounding."""
_ROUNDS = 12
_NUMBERS = 2**24
_SAMPLE = 20_000
"""Rows that quantiles are of."""
_WORK = 5e7
"""Multiplications a round: of larger tables some rows are looked at."""


def example_keys(x: Columns) -> npt.NDArray[np.uint64]:
    """Return one hash an example.

    Images that differ by a factor or an offset per channel (bytes, [0, 1], standardized) have
    the same hash; rows of features have it where their float32 values are equal. Different
    examples have the same one with a chance of 5e-20 a pair, unless they are equal in all of
    `LEVELS` steps between each channel's least and largest value.

    Args:
        x: Raw examples, shape (n, ...); numbers. Of several arrays by name a hash is of all.

    Returns:
        (n,), in the examples' order.
    """
    if isinstance(x, Mapping):
        together = np.zeros(count(x), np.uint64)
        for _, values in sorted(x.items()):
            with np.errstate(over="ignore"):
                together = together * _FACTOR + example_keys(values)
        return together
    keys = np.empty(len(x), np.uint64)
    size = max(1, CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size]).astype(np.float32)
        rows = part.reshape(len(part), -1) + 0.0  # -0.0 is 0.0
        steps = _steps(part) if has_steps(part.shape[1:]) else None
        for place, row in enumerate(rows):
            # of an image of one colour nothing would be left
            plain = steps is None or not steps[place].any()
            content = row.tobytes() if plain or steps is None else steps[place].tobytes()
            keys[start + place] = int.from_bytes(
                hashlib.blake2b(content, digest_size=8).digest(), "little"
            )
    return keys


def is_among(keys: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which keys are among others, (n,)."""
    # its other way overflows for large numbers in NumPy 2.0
    return np.asarray(np.isin(keys, others, kind="sort"))


def has_steps(shape: tuple[int, ...]) -> bool:
    """Return whether examples are recognized in any scale of their channels.

    Args:
        shape: Of one example.
    """
    return len(shape) >= 2 and int(np.prod(shape[:-1])) >= LEAST_VALUES


def as_rows(x: Columns) -> list[Rows] | None:
    """Return examples as matrices (n, columns), side by side; None where this is no table.

    Args:
        x: Examples (n, ...), or several such arrays by name.
    """
    values = [x[name] for name in sorted(x)] if isinstance(x, Mapping) else arrays(x)
    width = sum(int(np.prod(array.shape[1:])) for array in values)
    if width > MOST_COLUMNS or any(has_steps(array.shape[1:]) for array in values):
        return None
    return [array.reshape(len(array), -1) for array in values]


@dataclass(frozen=True)
class RowSketch:
    """Sketch of a table that recognizes its rows under other scales of the columns.

    Attributes:
        rows: Some of them, (m, columns), float32.
        centre: The median of each column, (columns,).
        spread: What a standard deviation would be of a normal column with these 10 % and 90 %
            quantiles, so that few large values do not make all others equal; the standard
            deviation where these are equal; 0: the column does not vary.
        low, high: The least and the largest value of each column.
    """

    rows: npt.NDArray[np.float32]
    centre: Floats
    spread: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, rows: list[Rows]) -> RowSketch:
        """Return the sketch of a table.

        Args:
            rows: See `as_rows`, at least one row.
        """
        low: Floats = np.full(sum(part.shape[1] for part in rows), math.inf)
        high: Floats = -low
        for part in _chunks(rows):
            low, high = np.minimum(low, part.min(0)), np.maximum(high, part.max(0))
        total = count(rows[0])
        wanted = max(REFERENCES, min(_SAMPLE, int(_NUMBERS / high.size)))
        sample = _chunk(rows, _spaced(total, wanted))
        tenth, centre, most = np.quantile(sample, [0.1, 0.5, 0.9], axis=0)
        spread = np.where(most > tenth, (most - tenth) / _TENTHS, sample.std(0))
        # of a constant column sums leave a rest
        spread = np.where(low < high, spread, 0.0)
        return cls(
            sample[_spaced(len(sample), REFERENCES)].astype(np.float32), centre, spread, low, high
        )

    @property
    def varies(self) -> npt.NDArray[np.bool_]:
        """Which columns vary: others tell nothing."""
        return self.spread > 0

    def keys(
        self, rows: list[Rows], scale: tuple[Floats, Floats] | None = None
    ) -> npt.NDArray[np.uint64]:
        """Return two hashes a row, (2, n): two rows are equal where one of them is.

        Args:
            rows: See `as_rows`.
            scale: Gain and offset of each column, to this table's units; None: these are its.
        """
        factors = np.random.default_rng(0).integers(2**63, size=self.spread.size, dtype=np.uint64)
        factors = factors[self.varies] * np.uint64(2) + np.uint64(1)
        found = []
        for part in _chunks(rows):
            steps = self._standardized(part, scale)[:, self.varies] * GRID
            for offset in OFFSETS:
                whole = np.clip(np.floor(steps + offset), -(2.0**62), 2.0**62)
                found.append((whole.astype(np.int64).view(np.uint64) * factors).sum(1))
        both: npt.NDArray[np.uint64] = np.stack(
            [np.concatenate(found[place :: len(OFFSETS)]) for place in range(len(OFFSETS))]
        )
        return both

    def collision_probability(self) -> float:
        """Return about how likely two different rows have one key.

        The product over as many columns as are independent, of those that tell least: rows that lie
        on a line have the keys of others once they are shifted along it.
        """
        values = self._standardized(self.rows, None)[:, self.varies]
        if not values.size:
            return 1.0
        # of a column without equal values among so few rows, as likely as of a normal one
        least = 1 / (2 * math.sqrt(math.pi) * GRID)
        pairs = max(1, len(values) * (len(values) - 1))
        likely = []
        for column in np.floor(values * GRID).T:
            counts = np.unique(column, return_counts=True)[1].astype(np.float64)
            likely.append(max(least, float((counts * (counts - 1)).sum()) / pairs))
        rank = int(np.linalg.matrix_rank(values - values.mean(0), rtol=_INDEPENDENT))
        return min(1.0, len(OFFSETS) * math.prod(sorted(likely, reverse=True)[:rank]))

    def find_scale(self, rows: list[Rows]) -> tuple[Floats, Floats] | None:
        """Return gain and offset of each column that make other rows those of this table.

        The rows of the sketch are matched with the nearest ones, the scales fitted to the nearest
        of these pairs, and so on until they agree but for rounding.

        Args:
            rows: Others, see `as_rows`.

        Returns:
            Gain (above 0) and offset, (columns,) each; None where too few rows are found.

        Reference:
            Besl & McKay 1992, "A method for registration of 3-D shapes": iterated closest points.
            Deviation: only the nearest pairs count, as most rows may have no partner.
        """
        same = sum(part.shape[1] for part in rows) == self.spread.size
        if not same or min(len(self.rows), len(rows[0])) < LEAST_FOUND:
            return None
        most = max(len(self.rows), int(_WORK / len(self.rows) / self.spread.size))
        if len(rows[0]) > most:
            rows = [part[:: -(-len(part) // most)] for part in rows]
        other = RowSketch.of(rows)
        shared = self.varies & other.varies  # others tell no scale
        if shared.sum() < 2:
            return None
        for first in (
            (self.spread, other.spread, self.centre, other.centre),
            (self.high - self.low, other.high - other.low, self.low, other.low),
        ):
            own_spread, its_spread, own_from, its_from = first
            gain = np.where(shared, own_spread / np.where(its_spread > 0, its_spread, 1), 1.0)
            found = self._refine(rows, gain, own_from - gain * its_from, shared, other)
            if found is not None:
                return found
        return None

    def _refine(
        self, rows: list[Rows], gain: Floats, offset: Floats, shared: npt.NDArray[np.bool_],
        other: RowSketch,
    ) -> tuple[Floats, Floats] | None:  # fmt: skip
        """Fit the scales to pairs of nearest rows until they agree."""
        own = self.rows.astype(np.float64)
        reached, most = math.inf, 0
        found: tuple[Floats, Floats] | None = None
        # of a column of few values both ends are there, if not in these pairs
        between = np.where(shared, self.high - self.low, 1.0) / np.where(
            shared, other.high - other.low, 1.0
        )
        for _ in range(_ROUNDS):
            index, distance = self._nearest(rows, (gain, offset), shared)
            nearest = np.sort(distance)
            chosen = distance <= max(2 * nearest[LEAST_FOUND - 1], 1e-9)
            partners = _chunk(rows, index)
            gain, offset = _fit_columns(partners[chosen], own[chosen], other.spread, between)
            residual = np.abs((partners * gain + offset - own) / np.where(shared, self.spread, 1.0))
            residual = residual[:, shared].max(1)
            exact, near = int((residual < _EXACT).sum()), int((residual < _NEAR).sum())
            if exact >= LEAST_FOUND and exact >= 0.5 * near:
                if exact <= most:
                    return found
                sure = residual < _EXACT
                found = _fit_columns(partners[sure], own[sure], other.spread, between)
                # with more pairs columns may vary that did not vary among the first ones
                most, (gain, offset) = exact, found
                continue
            if nearest[LEAST_FOUND - 1] >= 0.999 * reached:
                return found
            reached = nearest[LEAST_FOUND - 1]
        return found

    def _nearest(
        self, rows: list[Rows], scale: tuple[Floats, Floats], shared: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the place and the distance of the nearest row to each of the sketch."""
        wanted = self._standardized(self.rows, None)[:, shared].astype(np.float32)
        # all at once: `find_scale` leaves out so many that they are few
        held = self._standardized(_chunk(rows, slice(None)), scale)[:, shared].astype(np.float32)
        apart = np.square(wanted).sum(1)[:, None] - 2 * wanted @ held.T + np.square(held).sum(1)
        place = apart.argmin(1)
        nearest = apart[np.arange(len(wanted)), place]
        return place, np.sqrt(np.maximum(nearest, 0.0)).astype(np.float64)

    def _standardized(self, part: Rows, scale: tuple[Floats, Floats] | None) -> Floats:
        values = part.astype(np.float64)
        if scale is not None:
            values = values * scale[0] + scale[1]
        return np.asarray((values - self.centre) / np.where(self.varies, self.spread, 1.0))


@dataclass(frozen=True)
class KnownRows:
    """Rows of a table that are recognized under other scales of its columns.

    Attributes:
        sketch: Of the table.
        keys: Of the rows that are known, (2, m), by `RowSketch.keys`.
    """

    sketch: RowSketch
    keys: npt.NDArray[np.uint64]

    def recognize(self, parts: Mapping[str, Columns]) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which examples are known ones in another scale, by part.

        Args:
            parts: Examples by part; where the scale of one cannot be found, as few known rows are
                in it, that of another part holds. Parts that are no tables are left out.
        """
        tables = {name: rows for name, x in parts.items() if (rows := as_rows(x)) is not None}
        scales = {name: self.sketch.find_scale(rows) for name, rows in tables.items()}
        common = next((scale for scale in scales.values() if scale is not None), None)
        known = {}
        for name, rows in tables.items():
            scale = scales[name] or common
            if scale is None or is_identity(scale, self.sketch):
                continue
            first, second = self.sketch.keys(rows, scale)
            known[name] = is_among(first, self.keys[0]) | is_among(second, self.keys[1])
        return known


def is_identity(scale: tuple[Floats, Floats], sketch: RowSketch) -> bool:
    """Return whether a scale changes nothing but by rounding."""
    moved = np.abs(np.stack([sketch.low, sketch.high]) * (scale[0] - 1) + scale[1])
    return bool((moved[:, sketch.varies] <= 1e-3 * sketch.spread[sketch.varies]).all())


def _steps(part: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return each value's step between its channel's least and largest value, from 0."""
    axes = tuple(range(1, part.ndim - 1))
    low = part.min(axis=axes, keepdims=True)
    span = part.max(axis=axes, keepdims=True) - low
    shares = (part - low) / np.where(span > 0, span, 1)
    return np.asarray(np.floor(shares * LEVELS + OFFSET).astype(np.uint8))


def _fit_columns(
    partners: Floats, own: Floats, spread: Floats, default: Floats
) -> tuple[Floats, Floats]:
    """Return the least-squares line of each column.

    Args:
        partners: Rows in the units of the other table, (pairs, columns).
        own: The rows that they are matched with.
        spread: Of the other table's columns.
        default: Gain of columns that hardly vary among these pairs.
    """
    its_mean, own_mean = partners.mean(0), own.mean(0)
    about = partners - its_mean
    squares = np.square(about).sum(0)
    tells = squares > 1e-6 * len(partners) * np.square(spread)
    slope = (about * (own - own_mean)).sum(0) / np.where(tells, squares, 1.0)
    gain = np.where(tells & (slope > 0), slope, default)
    return gain, own_mean - gain * its_mean


def _spaced(total: int, wanted: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, total - 1, min(wanted, total)).astype(np.int64)


def _chunk(rows: list[Rows], index: Any) -> Floats:
    return np.concatenate([np.asarray(part[index], np.float64) for part in rows], axis=1)


def _chunks(rows: list[Rows]) -> Iterator[Floats]:
    total, width = count(rows[0]), sum(part.shape[1] for part in rows)
    size = max(1, _NUMBERS // max(1, width * 8))
    for start in range(0, total, size):
        yield _chunk(rows, slice(start, start + size))
