"""Yes or no, once, for each of several labels or at every position (masks): sigmoid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.tasks._base import (
    Array,
    Floats,
    Tallied,
    Task,
    check_rows,
    overlaps,
    per_example,
    repeat_row,
)
from compress.data.tasks.classes import OfClasses


class YesNo(Task):
    """Base of tasks of yes/no decisions."""

    activation = "sigmoid"
    least_agreement = 0.95

    def chance_loss(self) -> float:
        """Return log 2."""
        return math.log(2.0)

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal yes/no decisions."""
        return float(((scores > threshold) == (reference > threshold)).mean())

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return None: an example has any number of labels."""
        return None

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean binary cross-entropy of all decisions, (batch,)."""
        return sigmoid_loss(labels, logits, self.label_smoothing)


@dataclass(frozen=True)
class Binary(OfClasses, YesNo):
    """Two classes and one output; labels (n,) are 0 (the first class) or 1."""

    label_smoothing: float = 0.0

    name = "binary"
    qualities = ("accuracy", "f1", "precision", "recall", "roc_auc")
    shares = ("accuracy",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Binary:
        """Return the task: there is one of it."""
        return cls()

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield no and yes."""
        yield repeat_row([-1.0], labels)
        yield repeat_row([1.0], labels)

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return what `Task.chance_error` says; of an area that of scores without information.

        Reference:
            Mann & Whitney 1947, "On a test of whether one of two random variables is
            stochastically larger than the other": the variance of their U.
        """
        if self.qualities[0] != "roc_auc":
            return super().chance_error(labels, quality)
        yes = int(np.sum(labels == 1))
        no = len(labels) - yes
        return math.sqrt((len(labels) + 1) / (12 * yes * no)) if yes and no else 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return accuracy; precision, recall and F1 of class 1; area under the ROC curve.

        The area is left out where only one class occurs.
        """
        from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

        yes = scores[:, 0] > threshold
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, yes, average="binary", zero_division=0.0
        )
        found = {
            "accuracy": float((yes == labels.astype(bool)).mean()),
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
        }
        if len(np.unique(labels)) == 2:
            found["roc_auc"] = float(roc_auc_score(labels, scores[:, 0]))
        return found

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return where the decision is that of the label, (n,); see `Task.is_right`."""
        if self.qualities[0] != "accuracy":
            return None
        return np.asarray((scores[:, 0] > threshold) == labels.astype(bool))


@dataclass(frozen=True)
class MultiLabel(YesNo):
    """Any number of `num_labels` labels; labels (n, num_labels) are 0 or 1."""

    num_labels: int
    label_smoothing: float = 0.0

    name = "multilabel"
    noun = "labels"
    qualities = ("f1_macro", "f1_micro", "accuracy", "exact_match")
    shares = ("exact_match",)

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: rows of 0 and 1 become int64."""
        numbers = labels.dtype.kind in "fiub" and labels.ndim == 2 and labels.shape[1]
        if not numbers or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{name} must be rows of 0 and 1, one column a label. Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        return labels.astype(np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """See `Task.check`: rows of 0 and 1."""
        check_rows(labels, part, name, names)
        if not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"Labels of '{name}' must be 0 or 1. Received: others in the {part} part."
            )

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the examples that have each label."""
        return [int(n) for n in labels.sum(axis=0)]

    @property
    def outputs(self) -> int:
        """The number of labels."""
        return self.num_labels

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the best rows of yes and no: by label, pooled, by decision and by example."""
        counts = labels.sum(axis=0, dtype=np.int64)
        yield repeat_row(np.where(counts > 0, 1.0, -1.0), labels)
        # pooled F1 is best with the k most frequent labels, for some k
        order = np.argsort(-counts, kind="stable")
        said = len(labels) * np.arange(1, len(counts) + 1)
        best = int((np.cumsum(counts[order]) / (said + counts.sum())).argmax())
        pooled = np.full(len(counts), -1.0)
        pooled[order[: best + 1]] = 1.0
        yield repeat_row(pooled, labels)
        yield repeat_row(np.where(2 * counts > len(labels), 1.0, -1.0), labels)
        rows, times = np.unique(labels, axis=0, return_counts=True)
        yield repeat_row(np.where(rows[times.argmax()] > 0, 1.0, -1.0), labels)

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return F1 (mean over labels, and pooled), the share of right yes/no decisions and
        the share of examples whose labels are all right.

        The mean is over the labels that an example has or is said to have. scikit-learn's
        `f1_score(average="macro")` counts the others as `zero_division`, by default 0: with
        nan its mean is this one. Where no label occurs at all, both F1 are 0.
        """
        yes, true = scores > threshold, labels.astype(bool)
        right = yes == true
        # not scikit-learn's functions: they take a single label for two classes
        found = (yes & true).sum(axis=0)
        named = yes.sum(axis=0) + true.sum(axis=0)
        occur = named > 0
        each = 2 * found[occur] / named[occur]
        return {
            "f1_macro": float(each.mean()) if len(each) else 0.0,
            "f1_micro": float(2 * found.sum() / max(named.sum(), 1)),
            "accuracy": float(right.mean()),
            "exact_match": float(right.all(axis=-1).mean()),
        }

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return where all labels of an example are right, (n,); see `Task.is_right`."""
        if self.qualities[0] != "exact_match":
            return None
        return np.asarray(((scores > threshold) == labels.astype(bool)).all(axis=-1))


@dataclass(frozen=True)
class Masks(Tallied, YesNo):
    """`num_masks` masks that may overlap; labels (n, ..., num_masks) are 0 or 1."""

    num_masks: int
    label_smoothing: float = 0.0
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "masks"
    noun = "masks"
    qualities = ("mean_iou", "dice", "accuracy")
    tally_rows = 4

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Masks:
        """Return the task of so many masks; labels say of which positions."""
        return cls(names, positions=() if labels is None else tuple(labels.shape[1:-1]))

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: 0 and 1 become bytes."""
        positions = max(0, len(shape) - 1)
        if positions and labels.ndim == positions + 1:
            labels = labels[..., np.newaxis]
        fits = labels.ndim == positions + 2 if positions else labels.ndim > 2
        if not fits or labels.dtype.kind not in "fiub" or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{name} must be masks of 0 and 1, (n, positions ..., masks). Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        return labels.astype(np.int8)

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the examples in which each mask is anywhere."""
        return [int(n) for n in labels.any(tuple(range(1, labels.ndim - 1))).sum(0)]

    @property
    def outputs(self) -> int:
        """The number of masks."""
        return self.num_masks

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield yes everywhere of the masks that occur, and the more frequent answer of each."""
        shares = labels.reshape(-1, self.num_masks).mean(axis=0)
        for yes in (shares > 0, shares > 0.5):
            yield repeat_row(np.where(yes, 1.0, -1.0), labels, tuple(labels.shape[1:-1]))

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return of each mask the positions of an example.

        Shapes:
            (n, 4, masks): those that are rightly in it, said to be, in truth, and all.
        """
        flat = (len(labels), -1, self.num_masks)
        yes, true = (scores > threshold).reshape(flat), labels.reshape(flat).astype(bool)
        every = np.full((len(labels), self.num_masks), yes.shape[1])
        return np.stack([(yes & true).sum(1), yes.sum(1), true.sum(1), every], 1).astype(np.float64)

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return qualities of sums of `tallies`, (4, masks).

        mean_iou: the mean over masks of right / (said + true - right); dice: of
        2 right / (said + true); both over the masks that are said or true somewhere.
        accuracy: the share of decisions that are right.
        """
        right, said, true, every = sums
        wrong = said + true - 2 * right
        accuracy = float(1 - wrong.sum() / max(every.sum(), 1.0))
        return {**overlaps(right, said, true), "accuracy": accuracy}


def sigmoid_loss(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Return the mean over labels of the binary cross-entropy, (batch,).

    Args:
        labels: (batch,) or as the logits, 0 or 1.
        logits: (batch, ..., labels), float32.
        label_smoothing: s: a target y becomes y (1 - s) + s / 2.
    """
    import tensorflow as tf

    target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
    target = target * (1.0 - label_smoothing) + label_smoothing / 2
    return per_example(tf.nn.sigmoid_cross_entropy_with_logits(target, logits))
