"""Rows and targets of a layer, and their sums for least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.reconstruction.row_products import (
    WIDE,
    Floats,
    Numbers,
    Singles,
    compute_gram,
    map_blocks,
    multiply_rows,
    multiply_transposed,
)

CHUNK_NUMBERS = 2**20
"""Approximate number of elements of rows that are summed at once."""
MIN_ROWS = 512
"""Minimum number of rows that are summed at once."""
OFFSET_ROWS = 8192
"""Number of first rows; their mean is the offset of all rows."""


@dataclass(eq=False)
class Moments:
    """Sums over rows and targets about an offset, which preserves small spreads beside large means.

    Attributes:
        count: Number of rows.
        offsets: Offsets of rows (systems, columns) and of targets (systems, outputs).
        sums: Sums of rows and of targets minus their offsets, in the same shapes.
        pp: Products of rows, (systems, columns, columns).
        pt: Products of rows and targets, (systems, columns, outputs).
        tt: Squares of targets, (systems, outputs).
        noise: Variance of independent noise in each element of the rows; the diagonal of `pp`
            includes it `count` times.
    """

    count: int
    offsets: tuple[Numbers, Numbers]
    sums: tuple[Numbers, Numbers]
    pp: Numbers
    pt: Numbers
    tt: Numbers
    noise: float = 0.0

    @classmethod
    def from_offsets(cls, offsets: tuple[Numbers, Numbers], noise: float = 0.0) -> Moments:
        """Return empty sums with the given offsets."""
        p, t, tt = (np.zeros(part.shape) for part in (*offsets, offsets[1]))
        pp, pt = (np.zeros((*p.shape, part.shape[1])) for part in offsets)
        return cls(0, offsets, (p, t), pp, pt, tt, noise)

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Add rows (systems, rows, columns) and targets (systems, rows, outputs)."""
        systems, count, columns = rows.shape
        totals = (*self.sums, self.pp, self.pt, self.tt)
        # the noise exceeds the rounding errors of blocks a hundredfold
        is_single = self.noise and columns >= WIDE
        dtype: type[np.floating[Any]] = np.float32 if is_single else np.float64

        def sum_block(part: slice) -> tuple[Numbers, ...]:
            # in place, which keeps the memory layout
            p, t = rows[:, part].astype(dtype), targets[:, part].astype(dtype)
            p -= self.offsets[0][:, None]
            t -= self.offsets[1][:, None]
            products = multiply_transposed(p, t.transpose(1, 0, 2).reshape(p.shape[1], -1))
            first, second = (values.sum(1, dtype=np.float64) for values in (p, t))
            squares = np.square(t).sum(1, dtype=np.float64)
            return first, second, compute_gram(p), products, squares

        block = max(MIN_ROWS, CHUNK_NUMBERS // (systems * columns))
        for sums in map_blocks(sum_block, count, block, sum(part.nbytes for part in totals)):
            for total, part in zip(totals, sums, strict=True):
                total += part
        self.count += count
        np.einsum("sdd->sd", self.pp)[:] += count * self.noise

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.offsets,
            (self.sums[0] + other.sums[0], self.sums[1] + other.sums[1]),
            self.pp + other.pp,
            self.pt + other.pt,
            self.tt + other.tt,
            self.noise,
        )

    @property
    def means(self) -> tuple[Numbers, Numbers]:
        """Means of rows (systems, columns) and of targets (systems, outputs)."""
        count = max(1, self.count)
        return self.offsets[0] + self.sums[0] / count, self.offsets[1] + self.sums[1] / count

    def compute_centred(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return products about the means, in the shapes of `pp`, `pt` and `tt`."""
        count = max(1, self.count)
        p, t = self.sums
        return (
            self.pp - p[:, :, None] * p[:, None] / count,
            self.pt - p[:, :, None] * t[:, None] / count,
            np.maximum(self.tt - t**2 / count, 0.0),
        )

    def compute_raw(self, target_shift: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return the products of `compute_centred` about zero, after shifting the targets.

        Args:
            target_shift: Subtracted from the targets first, (systems, outputs).
        """
        a, b, c = self.compute_centred()
        p, t = self.means
        t = t - target_shift
        return (
            a + self.count * p[:, :, None] * p[:, None],
            b + self.count * p[:, :, None] * t[:, None],
            c + self.count * t**2,
        )

    def compute_errors(self, weights: Numbers, shift: Numbers) -> Numbers:
        """Return the sum over rows of (rows x weights + shift - targets)^2, (systems, outputs).

        It includes the error caused by the noise of the rows.
        """
        a, b, c = self.compute_centred()
        p, t = self.means
        inner = np.einsum("sdm,sdm->sm", weights, a @ weights - 2 * b) + c
        mean_error = t - np.einsum("sd,sdm->sm", p, weights) - shift
        return np.asarray(np.maximum(inner, 0.0) + self.count * mean_error**2)

    def compute_spread(self) -> Numbers:
        """Return the sum of squared deviations of the targets from their means, by output."""
        return np.asarray(self.compute_centred()[2])


@dataclass(eq=False)
class StoredRows:
    """Rows and targets themselves, used for one system with at most as many rows as columns.

    They replace `Moments`, which would be larger.

    Attributes:
        parts: Rows (systems, rows, columns) and targets (systems, rows, outputs).
        noise: Variance of independent noise in each element of the rows.
    """

    parts: list[tuple[Numbers, Numbers]] = field(default_factory=list)
    noise: float = 0.0

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Add rows (systems, rows, columns) and targets (systems, rows, outputs)."""
        self.parts.append((rows.astype(np.float64), targets.astype(np.float64)))

    def __add__(self, other: StoredRows) -> StoredRows:
        return StoredRows([*self.parts, *other.parts], self.noise)

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(rows.shape[1] for rows, _ in self.parts)

    @property
    def stacked(self) -> tuple[Numbers, Numbers]:
        """All rows and targets, concatenated at the first access."""
        if len(self.parts) > 1:
            rows, targets = zip(*self.parts, strict=True)
            self.parts = [(np.concatenate(rows, 1), np.concatenate(targets, 1))]
        return self.parts[0]

    @property
    def means(self) -> tuple[Numbers, Numbers]:
        """Means of rows (systems, columns) and of targets (systems, outputs)."""
        rows, targets = self.stacked
        return rows.mean(1), targets.mean(1)

    def compute_errors(self, weights: Numbers, shift: Numbers) -> Numbers:
        """Return the sum over rows of (rows x weights + shift - targets)^2, (systems, outputs).

        It includes the error caused by the noise of the rows.
        """
        rows, targets = self.stacked
        squares = ((rows @ weights + shift[:, None] - targets) ** 2).sum(1)
        return np.asarray(squares + self.count * self.noise * (weights**2).sum(1))

    def compute_spread(self) -> Numbers:
        """Return the sum of squared deviations of the targets from their means, by output."""
        targets = self.stacked[1]
        return np.asarray(((targets - targets.mean(1, keepdims=True)) ** 2).sum(1))


Sums = Moments | StoredRows


@dataclass(frozen=True, eq=False)
class Sample:
    """Sampled rows of a layer and their targets.

    Attributes:
        rows: (systems, rows, columns).
        targets: (rows, channels).
        base: Values added to outputs and targets before the activation, (rows, channels), or None.
        noise: Variance of the int8 rounding error in each element of the rows.
    """

    rows: Singles
    targets: Singles
    base: Singles | None = None
    noise: float = 0.0

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def concat(cls, parts: Sequence[Sample]) -> Sample:
        """Concatenate samples; the largest of their noise variances holds for all rows."""
        if len(parts) == 1:
            return parts[0]
        bases = [part.base for part in parts if part.base is not None]
        return cls(
            np.concatenate([part.rows for part in parts], 1),
            np.concatenate([part.targets for part in parts]),
            np.concatenate(bases) if bases else None,
            max(part.noise for part in parts),
        )

    def take_rows(self, part: slice) -> Sample:
        """Return the sample of some rows, as views."""
        base = None if self.base is None else self.base[part]
        return Sample(self.rows[:, part], self.targets[part], base, self.noise)

    def compute_sums(self, reference: Sums | None = None) -> Sums:
        """Return the moments, or the rows themselves for few rows; see `StoredRows`.

        Args:
            reference: Sums to which the result can be added: it gets their class, offsets and
                noise. Default: the class follows from the shape of the rows.
        """
        systems, count, columns = self.rows.shape
        shaped = self.targets.reshape(count, systems, -1).transpose(1, 0, 2)
        noise = self.noise if reference is None else reference.noise
        if isinstance(reference, StoredRows) or (
            reference is None and systems == 1 and count <= columns
        ):
            sums: Sums = StoredRows(noise=noise)
        elif reference is not None:
            sums = Moments.from_offsets(reference.offsets, noise)
        else:
            p, t = (x[:, :OFFSET_ROWS].astype(np.float64).mean(1) for x in (self.rows, shaped))
            sums = Moments.from_offsets((p, t), noise)
        sums.add(self.rows, shaped)
        return sums

    def predict(self, weights: Floats, shift: Numbers) -> Singles:
        """Return rows x weights + shift, (rows, channels)."""
        outputs = multiply_rows(self.rows, weights)
        outputs += shift.reshape(-1).astype(np.float32)
        return outputs


@dataclass(frozen=True)
class Clip:
    """Bounds of a clipping activation: ReLU clips from below, ReLU6 on both sides."""

    low: float
    high: float

    def measure_error(
        self, sample: Sample, weights: Numbers, shift: Numbers, variance: Singles | float = 0.0
    ) -> float:
        """Return the squared error after the activation, relative to the spread of the targets.

        Args:
            sample: Rows and targets; the noise of the rows adds to the error.
            weights: (systems, columns, outputs).
            shift: Added to the outputs, (systems, outputs) or (channels,).
            variance: Variance of additional noise in the outputs, (rows, channels).
        """
        outputs, targets = sample.predict(weights, shift), sample.targets
        if sample.base is not None:
            outputs, targets = outputs + sample.base, targets + sample.base
        outputs, targets = (np.clip(part, self.low, self.high) for part in (outputs, targets))
        spread = float(((targets - targets.mean(0)) ** 2).sum(dtype=np.float64))
        error = float(((outputs - targets) ** 2).sum(dtype=np.float64))
        if sample.noise or np.any(variance):
            input_noise = sample.noise * np.square(weights).sum(1).ravel()
            # clipped values pass no noise on
            open_rows = (outputs > self.low) & (outputs < self.high)
            error += float(((input_noise + variance) * open_rows).sum(dtype=np.float64))
        return error / (spread or 1.0)

    def mark_hidden(self, sample: Sample) -> Singles:
        """Return the targets, infinite where they are clipped: any output beyond is as good."""
        marked, bounds = sample.targets, self._compute_bounds(sample.base)
        if np.isfinite(self.low):
            marked = np.where(marked <= bounds[0], np.float32(-np.inf), marked)
        if np.isfinite(self.high):
            marked = np.where(marked >= bounds[1], np.float32(np.inf), marked)
        return marked

    def compute_targets(
        self, marked: Singles, outputs: Singles, base: Singles | None = None
    ) -> Singles:
        """Return the values nearest to the outputs that equal the targets after clipping.

        Args:
            marked: Targets as `mark_hidden` returns them, (rows, channels).
            outputs: Outputs there, (rows, channels).
            base: Values added to both before the activation; None: none.

        Returns:
            (rows, channels).
        """
        low, high = self._compute_bounds(base)
        if np.isfinite(self.low):
            below = np.minimum(outputs, low)
            marked = np.maximum(marked, below, out=below)
        if np.isfinite(self.high):
            above = np.maximum(outputs, high)
            marked = np.minimum(marked, above, out=above)
        return marked

    def _compute_bounds(self, base: Singles | None) -> tuple[Any, Any]:
        """Return both bounds for values to which a base is added."""
        bounds = np.float32(self.low), np.float32(self.high)
        return bounds if base is None else (bounds[0] - base, bounds[1] - base)

    def compute_residual(
        self, outputs: Singles, targets: Singles, base: Singles | None
    ) -> tuple[Singles, Singles]:
        """Return the residuals of the outputs after clipping.

        Args:
            outputs, targets: (rows, channels).
            base: Values added to both before the activation; None: none.

        Returns:
            The difference to the nearest value that equals the target after clipping, and a mask
            with 0 where both are clipped at the same bound and 1 elsewhere; both (rows, channels).
        """
        if base is not None:
            outputs, targets = outputs + base, targets + base
        low, high = np.float32(self.low), np.float32(self.high)
        is_hidden = ((targets <= low) & (outputs <= low)) | ((targets >= high) & (outputs >= high))
        residual = np.where(is_hidden, np.float32(0), outputs - np.clip(targets, low, high))
        return residual, (~is_hidden).astype(np.float32)
