"""Rows and targets of one layer: sampled once, solved for as often as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.reconstruction.sums import Moments, Numbers, Rows, Singles, Sums, products

FIRST = 8192
"""Rows whose mean is the offset of all."""
STEPS = 255
"""Between the least and the largest number of an int8 tensor."""


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
        """Puts samples behind each other."""
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
        """Returns moments, or the rows themselves where they are fewer than columns.

        Args:
            like: What the sums are to be added to; default: nothing.
        """
        systems, count, columns = self.rows.shape
        shaped = self.targets.reshape(count, systems, -1).transpose(1, 0, 2)
        if isinstance(like, Rows) or (like is None and systems == 1 and count <= columns):
            found = Rows(noise=self.noise if like is None else like.noise)
            found.add(self.rows, shaped)
            return found
        moments = (
            like.fresh()
            if like is not None
            else Moments.empty(
                self.rows[:, :FIRST].astype(np.float64),
                shaped[:, :FIRST].astype(np.float64),
                self.noise,
            )
        )
        moments.add(self.rows, shaped)
        return moments

    def predicted(self, weights: Numbers, shift: Numbers) -> Singles:
        """Returns rows x weights + shift, (rows, channels)."""
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
        """Returns the targets nearest to what weights make that look the same when cut off."""
        made = sample.predicted(weights, shift)
        off, _ = self.residual(made, sample.targets, sample.base)
        return made - off

    def residual(
        self, made: Singles, wanted: Singles, base: Singles | None
    ) -> tuple[Singles, Singles]:
        """Returns what is made less the nearest that looks as wanted when cut off.

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
