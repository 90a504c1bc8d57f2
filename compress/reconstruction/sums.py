"""Rows and targets of a layer, and sums over them: all that least squares need of them.

Rows are (systems, rows, columns), in whichever order they lie in memory. Those of a depthwise
kernel are patches whose channels lie last, seen with the channels in front: a matrix product of
each channel strides through all of memory. Sums along the channels do the same from seven to twenty
times as fast (240 channels, 3 x 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NUMBERS = 2**20
"""Of rows that are summed up at once, about."""
LEAST = 512
"""Rows, whatever their length."""
Singles = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
"""Of single or double precision."""
BLOCK = 512
"""Rows that are summed up in their own precision; sums of blocks are of double precision."""

FIRST = 8192
"""Rows whose mean is the offset of all."""
STEPS = 255
"""Between the least and the largest number of an int8 tensor."""


@dataclass(eq=False)
class Moments:
    """Sums over rows, about an offset that keeps large means from eating small spreads.

    Attributes:
        count: Rows.
        offsets: Of rows and targets, (systems, columns) and (systems, outputs).
        sums: Of rows and targets less their offsets, likewise.
        pp: Products of rows, (systems, columns, columns).
        pt: Of rows and targets, (systems, columns, outputs).
        tt: Squares of targets, (systems, outputs).
        noise: Variance of independent noise in each number of the rows; `pp` holds its share.
    """

    count: int
    offsets: tuple[Numbers, Numbers]
    sums: tuple[Numbers, Numbers]
    pp: Numbers
    pt: Numbers
    tt: Numbers
    noise: float = 0.0

    @classmethod
    def empty(cls, offsets: tuple[Numbers, Numbers], noise: float = 0.0) -> Moments:
        """Return sums over nothing."""
        p, t, tt = (np.zeros(part.shape) for part in (*offsets, offsets[1]))
        pp, pt = (np.zeros((*p.shape, part.shape[1])) for part in offsets)
        return cls(0, offsets, (p, t), pp, pt, tt, noise)

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Add rows (systems, rows, columns) and targets (systems, rows, outputs)."""
        systems, count, columns = rows.shape
        block = max(LEAST, NUMBERS // (systems * columns))
        for start in range(0, count, block):
            part = slice(start, start + block)
            # in place: the copies lie in memory as the originals do
            p, t = rows[:, part].astype(np.float64), targets[:, part].astype(np.float64)
            p -= self.offsets[0][:, None]
            t -= self.offsets[1][:, None]
            self.count += p.shape[1]
            self.sums[0][:] += p.sum(1)
            self.sums[1][:] += t.sum(1)
            self.pp += gram(p)
            self.pt += across(p, t.transpose(1, 0, 2).reshape(p.shape[1], -1))
            self.tt += np.einsum("srm,srm->sm", t, t)
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
        """Means of rows and of targets."""
        count = max(1, self.count)
        return self.offsets[0] + self.sums[0] / count, self.offsets[1] + self.sums[1] / count

    def centred(self) -> tuple[Numbers, Numbers, Numbers]:
        """Return products about the means: of rows, of rows and targets, squares of targets."""
        count = max(1, self.count)
        p, t = self.sums
        return (
            self.pp - p[:, :, None] * p[:, None] / count,
            self.pt - p[:, :, None] * t[:, None] / count,
            np.maximum(self.tt - t**2 / count, 0.0),
        )

    def raw(self, shift: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return products about zero, of targets less a shift (systems, outputs)."""
        a, b, c = self.centred()
        p, t = self.means
        t = t - shift
        count = self.count
        return (
            a + count * p[:, :, None] * p[:, None],
            b + count * p[:, :, None] * t[:, None],
            c + count * t**2,
        )

    def errors(self, weights: Numbers, shift: Numbers) -> Numbers:
        """Return the sum over rows of (rows x weights + shift - targets)^2, by output."""
        a, b, c = self.centred()
        p, t = self.means
        inner = np.einsum("sdm,sdm->sm", weights, a @ weights - 2 * b) + c
        off = t - np.einsum("sd,sdm->sm", p, weights) - shift
        return np.asarray(np.maximum(inner, 0.0) + self.count * off**2)

    def spread(self) -> Numbers:
        """Return the sum of squares of targets about their means, by output."""
        return np.asarray(self.centred()[2])


@dataclass(eq=False)
class Rows:
    """Rows themselves, where they are fewer than columns; answers as `Moments` does."""

    parts: list[tuple[Numbers, Numbers]] = field(default_factory=list)
    noise: float = 0.0

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Add rows (systems, rows, columns) and targets (systems, rows, outputs)."""
        self.parts.append((rows.astype(np.float64), targets.astype(np.float64)))

    def __add__(self, other: Rows) -> Rows:
        return Rows([*self.parts, *other.parts], self.noise)

    @property
    def count(self) -> int:
        """Rows."""
        return sum(rows.shape[1] for rows, _ in self.parts)

    @property
    def stacked(self) -> tuple[Numbers, Numbers]:
        """All rows and targets; they are put together once."""
        if len(self.parts) > 1:
            rows, targets = zip(*self.parts, strict=True)
            self.parts = [(np.concatenate(rows, 1), np.concatenate(targets, 1))]
        return self.parts[0]

    @property
    def means(self) -> tuple[Numbers, Numbers]:
        """Means of rows and of targets."""
        rows, targets = self.stacked
        return rows.mean(1), targets.mean(1)

    def errors(self, weights: Numbers, shift: Numbers) -> Numbers:
        """Return the sum over rows of (rows x weights + shift - targets)^2, by output."""
        rows, targets = self.stacked
        squares = ((rows @ weights + shift[:, None] - targets) ** 2).sum(1)
        return np.asarray(squares + self.count * self.noise * (weights**2).sum(1))

    def spread(self) -> Numbers:
        """Return the sum of squares of targets about their means, by output."""
        targets = self.stacked[1]
        return np.asarray(((targets - targets.mean(1, keepdims=True)) ** 2).sum(1))


Sums = Moments | Rows


@dataclass(frozen=True, eq=False)
class Sample:
    """What a layer's kernel is multiplied with, and what that should be.

    Attributes:
        rows: (systems, rows, columns).
        targets: (rows, channels).
        base: What is added before the activation, (rows, channels); None: nothing.
        noise: Variance of the error that int8 files make in each number of the rows.
    """

    rows: Singles
    targets: Singles
    base: Singles | None = None
    noise: float = 0.0

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def joined(cls, parts: Sequence[Sample]) -> Sample:
        """Put samples behind each other."""
        if len(parts) == 1:
            return parts[0]
        bases = [part.base for part in parts if part.base is not None]
        return cls(
            np.concatenate([part.rows for part in parts], 1),
            np.concatenate([part.targets for part in parts]),
            np.concatenate(bases) if bases else None,
            max(part.noise for part in parts),
        )

    def sums(self, like: Sums | None = None) -> Sums:
        """Return moments, or the rows themselves where they are fewer than columns.

        Args:
            like: What the sums are to be added to; default: nothing.
        """
        systems, count, columns = self.rows.shape
        shaped = self.targets.reshape(count, systems, -1).transpose(1, 0, 2)
        noise = self.noise if like is None else like.noise
        if isinstance(like, Rows) or (like is None and systems == 1 and count <= columns):
            sums: Sums = Rows(noise=noise)
        elif like is not None:
            sums = Moments.empty(like.offsets, noise)
        else:
            first, wanted = (part[:, :FIRST].astype(np.float64) for part in (self.rows, shaped))
            sums = Moments.empty((first.mean(1), wanted.mean(1)), noise)
        sums.add(self.rows, shaped)
        return sums

    def predicted(self, weights: Numbers, shift: Numbers) -> Singles:
        """Return rows x weights + shift, (rows, channels)."""
        return products(self.rows, weights) + shift.reshape(-1).astype(np.float32)


def rounding_noise(rows: Singles) -> float:
    """Return the variance of the error that rounding to int8 makes in each number.

    Args:
        rows: Numbers of one tensor; their steps reach from the least to the largest, and to 0.

    Example:
        >>> rounding_noise(np.float32([0, 255])) * 12
        1.0
    """
    step = (max(0.0, float(rows.max())) - min(0.0, float(rows.min()))) / STEPS
    return step**2 / 12


@dataclass(frozen=True)
class Clip:
    """An activation that cuts values off: ReLU from below, ReLU6 from both sides."""

    low: float
    high: float

    def error(
        self, sample: Sample, weights: Numbers, shift: Numbers, variance: Singles | float = 0.0
    ) -> float:
        """Return the squared error behind the activation relative to the targets' spread.

        Args:
            sample: Rows and targets; the noise of the rows adds to the error.
            weights: (systems, columns, outputs).
            shift: By output.
            variance: Of other noise in what is made, (rows, channels).
        """
        made, wanted = sample.predicted(weights, shift), sample.targets
        if sample.base is not None:
            made, wanted = made + sample.base, wanted + sample.base
        made, wanted = (np.clip(part, self.low, self.high) for part in (made, wanted))
        spread = float(((wanted - wanted.mean(0)) ** 2).sum(dtype=np.float64))
        error = float(((made - wanted) ** 2).sum(dtype=np.float64))
        if sample.noise or np.any(variance):
            own = sample.noise * np.square(weights).sum(1).ravel()
            # what is cut off passes no noise on
            open_rows = (made > self.low) & (made < self.high)
            error += float(((own + variance) * open_rows).sum(dtype=np.float64))
        return error / (spread or 1.0)

    def targets(self, sample: Sample, weights: Numbers, shift: Numbers) -> Singles:
        """Return the targets nearest to what weights make that look the same when cut off."""
        made = sample.predicted(weights, shift)
        off, _ = self.residual(made, sample.targets, sample.base)
        return made - off

    def residual(
        self, made: Singles, wanted: Singles, base: Singles | None
    ) -> tuple[Singles, Singles]:
        """Return what is made less the nearest that looks as wanted when cut off.

        Args:
            made, wanted: (rows, channels).
            base: What is added to both before the activation.

        Returns:
            The difference, and 1 where it counts, 0 where both are cut off alike; (rows, channels).
        """
        if base is not None:
            made, wanted = made + base, wanted + base
        low, high = np.float32(self.low), np.float32(self.high)
        alike = ((wanted <= low) & (made <= low)) | ((wanted >= high) & (made >= high))
        off = np.where(alike, np.float32(0), made - np.clip(wanted, low, high))
        return off, (~alike).astype(np.float32)


def products(rows: Singles, weights: Numbers) -> Singles:
    """Return rows x weights.

    Args:
        rows: (systems, rows, columns).
        weights: (systems, columns, outputs).

    Returns:
        (rows, channels), channels being the outputs of all systems in a row.

    Example:
        >>> products(np.float32([[[1, 2], [3, 4]]]), np.array([[[1.0], [10.0]]])).tolist()
        [[21.0], [43.0]]
    """
    kernel = weights.astype(np.float32)
    patches = _channels_last(rows)
    if patches is None:
        made = rows @ kernel
        return np.asarray(made.transpose(1, 0, 2).reshape(rows.shape[1], -1))
    each = np.ascontiguousarray(kernel.transpose(2, 1, 0))
    outputs = [np.einsum("rcs,cs->rs", patches, part) for part in each]
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, 2).reshape(len(patches), -1)


def across(rows: Floats, u: Floats) -> Numbers:
    """Return rows' x u, the sums over rows.

    Args:
        rows: (systems, rows, columns).
        u: (rows, channels).

    Returns:
        (systems, columns, outputs).

    Example:
        >>> across(np.float32([[[1, 2], [3, 4]]]), np.float32([[1], [10]])).tolist()
        [[[31.0], [42.0]]]
    """
    shaped = u.reshape(len(u), len(rows), -1)
    patches = _channels_last(rows)
    if patches is None:
        right = np.ascontiguousarray(shaped.transpose(1, 0, 2))
        return np.asarray(rows.transpose(0, 2, 1) @ right, np.float64)
    sums = [_summed(patches, np.ascontiguousarray(shaped[:, :, each]))
            for each in range(shaped.shape[2])]  # fmt: skip
    return np.stack(sums, 2).transpose(1, 0, 2)


def back(u: Singles, weights: Numbers) -> Singles:
    """Return u x weights', by rows.

    Args:
        u: (rows, channels).
        weights: (systems, columns, outputs).

    Returns:
        (systems, rows, columns); of systems with one output with the systems last in memory.
    """
    systems, _, outputs = weights.shape
    kernel = weights.astype(np.float32)
    if systems > 1 and outputs == 1:
        return np.asarray((u[:, None] * kernel[:, :, 0].T).transpose(2, 0, 1))
    shaped = u.reshape(len(u), systems, outputs).transpose(1, 0, 2)
    return np.asarray(shaped @ kernel.transpose(0, 2, 1))


def gram(rows: Floats) -> Numbers:
    """Return rows' x rows, (systems, columns, columns); sums are of the rows' own precision.

    Where systems lie last in memory, within a block.
    """
    patches = _channels_last(rows)
    if patches is None:
        return np.asarray(rows.transpose(0, 2, 1) @ rows, np.float64)
    columns = rows.shape[2]
    found = np.empty((len(rows), columns, columns))
    for column in range(columns):
        half = _summed(patches[:, : column + 1], patches[:, column])
        found[:, column, : column + 1] = found[:, : column + 1, column] = half.T
    return found


def _channels_last(rows: Floats) -> Floats | None:
    """Return rows as they lie, (rows, columns, systems), where systems lie last."""
    last = len(rows) > 1 and rows.strides[0] == rows.itemsize
    return rows.transpose(1, 2, 0) if last else None


def _summed(patches: Floats, u: Floats) -> Numbers:
    """Return the sums over rows of patches (rows, columns, systems) x u (rows, systems)."""
    found = np.zeros(patches.shape[1:])
    for start in range(0, len(patches), BLOCK):
        part = slice(start, start + BLOCK)
        found += np.einsum("rcs,rs->cs", patches[part], u[part])
    return found
