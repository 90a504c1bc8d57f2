"""Yes/no tasks with a sigmoid: one label, several labels, or masks at every position."""

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
    TalliedTask,
    Task,
    check_rows,
    compute_example_means,
    compute_overlap_metrics,
    expand_row,
)
from compress.data.tasks.classes import ClassIndexTask


class SigmoidTask(Task):
    """Base class of tasks with yes/no decisions."""

    activation = "sigmoid"
    least_agreement = 0.95

    def chance_loss(self) -> float:
        """Return log 2, the loss of a probability of 0.5."""
        return math.log(2.0)

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of equal yes/no decisions."""
        return float(((scores > threshold) == (reference > threshold)).mean())

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return None: an example can have any number of labels."""
        return None

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean binary cross-entropy of all decisions, (batch,)."""
        return compute_sigmoid_loss(labels, logits, self.label_smoothing)


@dataclass(frozen=True)
class Binary(ClassIndexTask, SigmoidTask):
    """Two classes and one output; labels (n,) are 0 (the first class) or 1."""

    label_smoothing: float = 0.0

    name = "binary"
    qualities = ("accuracy", "f1", "precision", "recall", "roc_auc")
    shares = ("accuracy",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Binary:
        """Return the task, which does not depend on the labels."""
        return cls()

    @property
    def outputs(self) -> int:
        """The number of outputs, 1."""
        return 1

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the logits of all no (-1) and of all yes (1), (n, 1) each."""
        yield expand_row([-1.0], labels)
        yield expand_row([1.0], labels)

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return `Task.chance_error`; for ROC AUC the error of random scores.

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

        The area is omitted if only one class occurs.
        """
        from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

        predicted = scores[:, 0] > threshold
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predicted, average="binary", zero_division=0.0
        )
        metrics = {
            "accuracy": float((predicted == labels.astype(bool)).mean()),
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
        }
        if len(np.unique(labels)) == 2:
            metrics["roc_auc"] = float(roc_auc_score(labels, scores[:, 0]))
        return metrics

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return a mask of the right decisions, (n,); see `Task.is_right`."""
        if self.qualities[0] != "accuracy":
            return None
        return np.asarray((scores[:, 0] > threshold) == labels.astype(bool))


@dataclass(frozen=True)
class MultiLabel(SigmoidTask):
    """Any number of `num_labels` labels per example; labels (n, num_labels) are 0 or 1."""

    num_labels: int
    label_smoothing: float = 0.0

    name = "multilabel"
    noun = "labels"
    qualities = ("f1_macro", "f1_micro", "accuracy", "exact_match")
    shares = ("exact_match",)

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return rows of 0 and 1 as int64; see `Task.read`."""
        numbers = labels.dtype.kind in "fiub" and labels.ndim == 2 and labels.shape[1]
        if not numbers or not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"{name} must be rows of 0 and 1, one column a label. Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        return labels.astype(np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check that labels are rows of 0 and 1; see `Task.check`."""
        check_rows(labels, part, name, names)
        if not np.isin(labels, (0, 1)).all():
            raise InputError(
                f"Labels of '{name}' must be 0 or 1. Received: others in the {part} part."
            )

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the number of examples with each label."""
        return [int(n) for n in labels.sum(axis=0)]

    @property
    def outputs(self) -> int:
        """The number of labels."""
        return self.num_labels

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the best rows for macro F1, micro F1, accuracy and exact match."""
        counts = labels.sum(axis=0, dtype=np.int64)
        yield expand_row(np.where(counts > 0, 1.0, -1.0), labels)
        # micro F1 is best with the k most frequent labels, for some k
        order = np.argsort(-counts, kind="stable")
        num_predicted = len(labels) * np.arange(1, len(counts) + 1)
        best = int((np.cumsum(counts[order]) / (num_predicted + counts.sum())).argmax())
        pooled = np.full(len(counts), -1.0)
        pooled[order[: best + 1]] = 1.0
        yield expand_row(pooled, labels)
        yield expand_row(np.where(2 * counts > len(labels), 1.0, -1.0), labels)
        rows, row_counts = np.unique(labels, axis=0, return_counts=True)
        yield expand_row(np.where(rows[row_counts.argmax()] > 0, 1.0, -1.0), labels)

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return F1 (macro and micro), accuracy of decisions and share of exact matches.

        Macro F1 is the mean over the labels that are actual or predicted for some example.
        scikit-learn's `f1_score(average="macro")` counts the others as `zero_division`, by default
        0; with nan its mean equals this one. If no label occurs at all, both F1 are 0.
        """
        predicted, actual = scores > threshold, labels.astype(bool)
        is_right = predicted == actual
        # not scikit-learn's functions, which interpret a single label as two classes
        true_positives = (predicted & actual).sum(axis=0)
        positives = predicted.sum(axis=0) + actual.sum(axis=0)
        occurs = positives > 0
        label_f1 = 2 * true_positives[occurs] / positives[occurs]
        return {
            "f1_macro": float(label_f1.mean()) if len(label_f1) else 0.0,
            "f1_micro": float(2 * true_positives.sum() / max(positives.sum(), 1)),
            "accuracy": float(is_right.mean()),
            "exact_match": float(is_right.all(axis=-1).mean()),
        }

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return a mask of examples whose labels are all right, (n,); see `Task.is_right`."""
        if self.qualities[0] != "exact_match":
            return None
        return np.asarray(((scores > threshold) == labels.astype(bool)).all(axis=-1))


@dataclass(frozen=True)
class Masks(TalliedTask, SigmoidTask):
    """Segmentation into `num_masks` masks; labels (n, ..., num_masks) are 0 or 1.

    Masks may overlap.
    """

    num_masks: int
    label_smoothing: float = 0.0
    positions: tuple[int, ...] = field(default=(), repr=False)

    name = "masks"
    noun = "masks"
    qualities = ("mean_iou", "dice", "accuracy")

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Masks:
        """Return the task of a number of masks; labels determine its positions."""
        return cls(names, positions=() if labels is None else tuple(labels.shape[1:-1]))

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return masks of 0 and 1 as int8; see `Task.read`."""
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
        """Return the number of examples in which each mask is not empty."""
        return [int(n) for n in labels.any(tuple(range(1, labels.ndim - 1))).sum(0)]

    @property
    def outputs(self) -> int:
        """The number of masks."""
        return self.num_masks

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield yes for all masks that occur, and the more frequent decision of each mask."""
        shares = labels.reshape(-1, self.num_masks).mean(axis=0)
        for yes in (shares > 0, shares > 0.5):
            yield expand_row(np.where(yes, 1.0, -1.0), labels, tuple(labels.shape[1:-1]))

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the number of positions of each example by mask.

        Shapes:
            (n, 4, masks): positions correctly predicted to be in the mask, predicted to be in it,
            actually in it, and all positions.
        """
        flat = (len(labels), -1, self.num_masks)
        predicted, actual = (scores > threshold).reshape(flat), labels.reshape(flat).astype(bool)
        num_positions = np.full((len(labels), self.num_masks), predicted.shape[1])
        return np.stack(
            [(predicted & actual).sum(1), predicted.sum(1), actual.sum(1), num_positions], 1
        ).astype(np.float64)

    def compute_from_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the metrics from sums of `tallies`, (4, masks).

        mean_iou: mean over masks of correct / (predicted + actual - correct). dice: mean of 2
        correct / (predicted + actual). Both are over the masks that are predicted or actual
        somewhere. accuracy: share of right decisions.
        """
        correct, predicted, actual, num_positions = sums
        wrong = predicted + actual - 2 * correct
        accuracy = float(1 - wrong.sum() / max(num_positions.sum(), 1.0))
        return {**compute_overlap_metrics(correct, predicted, actual), "accuracy": accuracy}


def compute_sigmoid_loss(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Return the mean over labels of the binary cross-entropy, (batch,).

    Args:
        labels: (batch,) or the shape of the logits, 0 or 1.
        logits: (batch, ..., labels), float32.
        label_smoothing: Share s in [0, 1): a target y becomes y (1 - s) + s / 2.
    """
    import tensorflow as tf

    target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
    target = target * (1.0 - label_smoothing) + label_smoothing / 2
    return compute_example_means(tf.nn.sigmoid_cross_entropy_with_logits(target, logits))
