"""Sums over rows and targets, all that least squares need of them, or the rows themselves.

Rows are (systems, rows, columns), in whichever order they lie in memory. Those of a depthwise
kernel are patches whose channels lie last, seen with the channels in front: a matrix product of
each channel strides through all of memory. Sums along the channels do the same from seven to twenty
times as fast (240 channels, 3 x 3).
"""

from __future__ import annotations

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
    def empty(cls, rows: Numbers, targets: Numbers, noise: float = 0.0) -> Moments:
        """Return sums over nothing, with offsets from some rows and targets."""
        systems, _, columns = rows.shape
        outputs = targets.shape[2]
        zeros = np.zeros
        return cls(
            0,
            (rows.mean(1), targets.mean(1)),
            (zeros((systems, columns)), zeros((systems, outputs))),
            zeros((systems, columns, columns)),
            zeros((systems, columns, outputs)),
            zeros((systems, outputs)),
            noise,
        )

    def fresh(self) -> Moments:
        """Returns sums over nothing with the same offsets."""
        arrays = [np.zeros_like(part) for part in (*self.sums, self.pp, self.pt, self.tt)]
        pp, pt, tt = arrays[2:]
        return Moments(0, self.offsets, (arrays[0], arrays[1]), pp, pt, tt, self.noise)

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Adds rows (systems, rows, columns) and targets (systems, rows, outputs)."""
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
        """Returns products about the means: of rows, of rows and targets, squares of targets."""
        count = max(1, self.count)
        p, t = self.sums
        return (
            self.pp - p[:, :, None] * p[:, None] / count,
            self.pt - p[:, :, None] * t[:, None] / count,
            np.maximum(self.tt - t**2 / count, 0.0),
        )

    def raw(self, shift: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Returns products about zero, of targets less a shift (systems, outputs)."""
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
        """Returns the sum over rows of (rows x weights + shift - targets)^2, by output."""
        a, b, c = self.centred()
        p, t = self.means
        inner = np.einsum("sdm,sdm->sm", weights, a @ weights - 2 * b) + c
        off = t - np.einsum("sd,sdm->sm", p, weights) - shift
        return np.asarray(np.maximum(inner, 0.0) + self.count * off**2)

    def spread(self) -> Numbers:
        """Returns the sum of squares of targets about their means, by output."""
        return np.asarray(self.centred()[2])


@dataclass(eq=False)
class Rows:
    """Rows themselves, where they are fewer than columns; answers as `Moments` does."""

    parts: list[tuple[Numbers, Numbers]] = field(default_factory=list)
    noise: float = 0.0

    def fresh(self) -> Rows:
        """Return no rows."""
        return Rows(noise=self.noise)

    def add(self, rows: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Adds rows (systems, rows, columns) and targets (systems, rows, outputs)."""
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
        """Returns the sum over rows of (rows x weights + shift - targets)^2, by output."""
        rows, targets = self.stacked
        squares = ((rows @ weights + shift[:, None] - targets) ** 2).sum(1)
        return np.asarray(squares + self.count * self.noise * (weights**2).sum(1))

    def spread(self) -> Numbers:
        """Returns the sum of squares of targets about their means, by output."""
        targets = self.stacked[1]
        return np.asarray(((targets - targets.mean(1, keepdims=True)) ** 2).sum(1))


def products(rows: Singles, weights: Numbers) -> Singles:
    """Returns rows x weights.

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
    """Returns rows' x u, the sums over rows.

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
    """Returns u x weights', by rows.

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
    """Returns rows' x rows, (systems, columns, columns); sums are of the rows' own precision.

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


Sums = Moments | Rows


def _channels_last(rows: Floats) -> Floats | None:
    """Returns rows as they lie, (rows, columns, systems), where systems lie last."""
    last = len(rows) > 1 and rows.strides[0] == rows.itemsize
    return rows.transpose(1, 2, 0) if last else None


def _summed(patches: Floats, u: Floats) -> Numbers:
    """Returns the sums over rows of patches (rows, columns, systems) x u (rows, systems)."""
    found = np.zeros(patches.shape[1:])
    for start in range(0, len(patches), BLOCK):
        part = slice(start, start + BLOCK)
        found += np.einsum("rcs,rs->cs", patches[part], u[part])
    return found
