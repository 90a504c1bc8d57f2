"""Yes or no at every position, for one mask or several: sigmoid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.data.tasks._base import Array, Floats, repeat_row
from compress.data.tasks.labels import yes_or_no_by_position
from compress.data.tasks.yes_no import YesNo, sigmoid_loss


@dataclass(frozen=True)
class Masks(YesNo):
    """`num_masks` masks that may overlap; labels (n, ..., num_masks) are 0 or 1."""

    num_masks: int
    label_smoothing: float = 0.0
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "masks"
    noun = "masks"
    qualities = ("mean_iou", "dice", "accuracy")

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Masks:
        """Returns the task of so many masks; labels say of which positions."""
        return cls(names, positions=() if labels is None else tuple(labels.shape[1:-1]))

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: 0 and 1 become bytes."""
        return yes_or_no_by_position(labels, name, max(0, len(shape) - 1))

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Returns the examples in which each mask is anywhere."""
        return [int(n) for n in labels.any(tuple(range(1, labels.ndim - 1))).sum(0)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Returns None: an example has any number of masks."""
        return None

    @property
    def outputs(self) -> int:
        """The number of masks."""
        return self.num_masks

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(positions ..., masks)."""
        return (*self.positions, self.num_masks)

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the mean over positions and masks of the binary cross-entropy, (batch,)."""
        return sigmoid_loss(labels, logits, self.label_smoothing)

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield yes everywhere of the masks that occur, and the more frequent answer of each."""
        shares = labels.reshape(-1, self.num_masks).mean(axis=0)
        for yes in (shares > 0, shares > 0.5):
            yield repeat_row(np.where(yes, 1.0, -1.0), labels, tuple(labels.shape[1:-1]))

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns the qualities over all positions of all examples together; see `of_tallies`."""
        return self.of_tallies(self.tallies(labels, scores, threshold=threshold).sum(0))

    @property
    def tally_shape(self) -> tuple[int, ...]:
        """See `tallies`."""
        return (4, self.num_masks)

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Returns of each mask the positions of an example.

        Shapes:
            (n, 4, masks): those that are rightly in it, said to be, in truth, and all.
        """
        flat = (len(labels), -1, self.num_masks)
        yes, true = (scores > threshold).reshape(flat), labels.reshape(flat).astype(bool)
        every = np.full((len(labels), self.num_masks), yes.shape[1])
        found = [(yes & true).sum(1), yes.sum(1), true.sum(1), every]
        return np.stack(found, 1).astype(np.float64)

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Returns qualities of sums of `tallies`, (4, masks).

        mean_iou: the mean over masks of right / (said + true - right); dice: of
        2 right / (said + true); both over the masks that are said or true somewhere.
        accuracy: the share of decisions that are right.
        """
        right, said, true, every = sums
        occur = said + true > 0
        overlap = right[occur] / (said + true - right)[occur]
        dice = 2 * right[occur] / (said + true)[occur]
        wrong = said + true - 2 * right
        return {
            "mean_iou": float(overlap.mean()) if occur.any() else 0.0,
            "dice": float(dice.mean()) if occur.any() else 0.0,
            "accuracy": float(1 - wrong.sum() / max(every.sum(), 1.0)),
        }
