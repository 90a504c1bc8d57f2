"""One class of several: softmax; and what tasks share whose label is one class of an example."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.tasks._base import Array, Floats, Task, check_range, repeat_row


class OfClasses(Task):
    """How class indices, (n,), are read and counted."""

    noun = "classes"
    indices = True

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: (n,) or (n, 1), any integer type, become (n,) int64."""
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise InputError(
                f"{name} must be a vector of integer class indices. "
                f"Received: shape {labels.shape}, type {labels.dtype}.{_other_task(labels)}"
            )
        return labels.astype(np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """See `Task.check`: indices are in [0, names)."""
        check_range(labels, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        """Returns the number of different classes."""
        return len(np.unique(labels))

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Returns the examples of each class."""
        return [int(n) for n in np.bincount(labels, minlength=names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Returns their sum: an example is of one class."""
        return sum(counts)


_SHUFFLES = 40
"""Unrelated answers whose spread is looked at: it is known within 11 %."""


@dataclass(frozen=True)
class MultiClass(OfClasses):
    """Classification into `num_classes` classes; labels (n,) are indices.

    Reference:
        Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    num_classes: int
    label_smoothing: float = 0.0

    name = "multiclass"
    activation = "softmax"
    qualities = ("accuracy", "f1_macro", "precision_macro", "recall_macro")
    shares = ("accuracy",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> MultiClass:
        """Returns the task of so many classes."""
        return cls(names)

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.num_classes

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns -sum_k q_k log softmax(logits)_k, q = (1 - s) onehot + s / K, (batch,)."""
        import tensorflow as tf

        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return tf.nn.softmax_cross_entropy_with_logits(target, logits)

    def chance_loss(self) -> float:
        """Returns log K: the cross-entropy of a uniform guess with any target."""
        return math.log(self.num_classes)

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the most frequent class: no other constant answer is better in any quality."""
        most = np.bincount(labels, minlength=self.num_classes).argmax()
        yield repeat_row(np.eye(self.num_classes)[most], labels)

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return what `Task.chance_error` says; of means over classes that of unrelated answers.

        A constant answer hardly varies in these, and answers drawn at random have a better F1.
        """
        main = self.qualities[0]
        if main == "accuracy":
            return super().chance_error(labels, quality)
        if main == "recall_macro":  # of a uniform guess, which varies most
            counts = np.bincount(labels)
            occurring = counts[counts > 0]
            share = 1 / len(occurring)
            return float(np.sqrt((share * (1 - share) / occurring).sum()) * share)
        random, classes = np.random.default_rng(0), np.eye(self.num_classes, dtype=np.float32)
        drawn = [
            self.quality(labels, classes[random.permutation(labels)])[main]
            for _ in range(_SHUFFLES)
        ]
        return max(0.0, float(np.mean(drawn)) - self.chance(labels)) + float(np.std(drawn))

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns accuracy, and the unweighted means over classes of precision, recall and F1.

        The largest score wins. The means are over the classes that occur among labels or
        predictions, as scikit-learn's are; one of these that is never predicted counts
        precision 0, one that no example has recall 0.
        """
        from sklearn.metrics import precision_recall_fscore_support

        predicted = scores.argmax(axis=-1)
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels, predicted, average="macro", zero_division=0.0
        )
        return {
            "accuracy": float((predicted == labels).mean()),
            "f1_macro": float(f1),
            "precision_macro": float(precision),
            "recall_macro": float(recall),
        }

    def is_right(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.bool_] | None:
        """Return where the largest score is that of the label, (n,); see `Task.is_right`."""
        if self.qualities[0] != "accuracy":
            return None
        right: npt.NDArray[np.bool_] = scores.argmax(axis=-1) == labels
        return right

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Returns the share of examples with the same largest score."""
        return float((scores.argmax(-1) == reference.argmax(-1)).mean())


def _other_task(labels: Array) -> str:
    """Returns which task labels that are no class indices are likely to be of, as a hint."""
    if labels.dtype.kind not in "fiub" or not labels.size:
        return ""
    if labels.ndim == 2 and np.isin(labels, (0, 1)).all():
        if (labels.sum(axis=1) == 1).all():
            return " Are they one-hot? Give their argmax, or --task multilabel for several labels."
        return " Several labels an example? Give --task multilabel."
    if labels.dtype.kind == "f" and labels.ndim in (1, 2):
        return " Numbers to predict? Give --task regression; classes: as integers."
    if labels.ndim >= 2 and labels.dtype.kind in "iub":
        return " A class at every position? Give --task segmentation (images) or tagging."
    return ""
