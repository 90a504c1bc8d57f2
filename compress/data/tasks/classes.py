"""Softmax tasks: one class per example, or per position of an image or a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.data.tasks._base import (
    Array,
    Floats,
    TalliedTask,
    Task,
    check_range,
    compute_overlap_metrics,
    expand_row,
)

VOID = -1
"""Label of positions that are excluded from training and evaluation."""
_METRIC_ALIASES = {"f1_macro": "dice"}
"""Dice's coefficient of a class equals its F1."""
_NUM_SHUFFLES = 40
"""Number of random predictions; their standard deviation is estimated within 11 %."""


@dataclass(frozen=True)
class _SoftmaxTask(Task):
    num_classes: int
    label_smoothing: float = 0.0

    activation = "softmax"
    noun = "classes"

    @property
    def outputs(self) -> int:
        return self.num_classes

    def chance_loss(self) -> float:
        """Return log K: the cross-entropy of a uniform prediction with any target."""
        return math.log(self.num_classes)

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of examples or positions with the same largest score."""
        return float((scores.argmax(-1) == reference.argmax(-1)).mean())


class ClassIndexTask(Task):
    """Base class of tasks whose labels are class indices, (n,)."""

    noun = "classes"
    indices = True

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return integers of shape (n,) or (n, 1) as (n,) int64; see `Task.read`."""
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            raise InputError(
                f"{name} must be a vector of integer class indices. "
                f"Received: shape {labels.shape}, type {labels.dtype}.{_suggest_task(labels)}"
            )
        return labels.astype(np.int64)

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check that indices are in [0, names); see `Task.check`."""
        check_range(labels, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        """Return the number of different classes."""
        return len(np.unique(labels))

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the number of examples of each class."""
        return [int(n) for n in np.bincount(labels, minlength=names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return the sum of the counts, since an example has one class."""
        return sum(counts)


@dataclass(frozen=True)
class MultiClass(ClassIndexTask, _SoftmaxTask):
    """Classification into `num_classes` classes; labels (n,) are indices.

    Reference:
        Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    name = "multiclass"
    qualities = ("accuracy", "f1_macro", "precision_macro", "recall_macro")
    shares = ("accuracy",)

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return -sum_k q_k log softmax(logits)_k, q = (1 - s) onehot + s / K, (batch,)."""
        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return tf.nn.softmax_cross_entropy_with_logits(target, logits)

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the most frequent class, which is the best constant in every quality."""
        most_frequent = np.bincount(labels, minlength=self.num_classes).argmax()
        yield expand_row(np.eye(self.num_classes)[most_frequent], labels)

    def chance_error(self, labels: Array, quality: float) -> float:
        """Return `Task.chance_error`; for macro metrics the error of random predictions.

        A constant prediction hardly varies in these metrics, and random predictions have a better
        F1.
        """
        main = self.qualities[0]
        if main == "accuracy":
            return super().chance_error(labels, quality)
        if main == "recall_macro":  # error of a uniform random prediction, which varies most
            counts = np.bincount(labels)
            occurring = counts[counts > 0]
            share = 1 / len(occurring)
            return float(np.sqrt((share * (1 - share) / occurring).sum()) * share)
        random, classes = np.random.default_rng(0), np.eye(self.num_classes, dtype=np.float32)
        shuffled_values = [
            self.quality(labels, classes[random.permutation(labels)])[main]
            for _ in range(_NUM_SHUFFLES)
        ]
        return max(0.0, float(np.mean(shuffled_values)) - self.chance(labels)) + float(
            np.std(shuffled_values)
        )

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Return accuracy, and the unweighted means over classes of precision, recall and F1.

        The predicted class has the largest score. The means are over the classes that occur among
        labels or predictions, as in scikit-learn. A class that is never predicted has precision 0;
        a class without examples has recall 0.
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
        """Return a mask of the right predictions, (n,); see `Task.is_right`."""
        if self.qualities[0] != "accuracy":
            return None
        return np.asarray(scores.argmax(axis=-1) == labels)


@dataclass(frozen=True)
class _PositionTask(TalliedTask, _SoftmaxTask):
    positions: tuple[int, ...] = field(default=(), repr=False)

    classes = True

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Self:
        return cls(names, positions=() if labels is None else tuple(labels.shape[1:]))

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """Return class indices by position as int32; 255 in bytes is void. See `Task.read`."""
        positions, classes = max(0, len(shape) - 1), (shape[-1] if shape else None) or 0
        # the last axis has size 1, or is one-hot
        if positions and labels.ndim == positions + 2:
            if labels.shape[-1] == 1:
                labels = labels[..., 0]
            elif labels.shape[-1] == classes:
                if not (np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all()):
                    raise InputError(
                        f"{name} must be class indices or one-hot. Received: other rows."
                    )
                labels = labels.argmax(-1)
        is_integer = labels.dtype.kind in "iub" or (
            labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
        )
        if labels.ndim < 2 or (positions and labels.ndim - 1 != positions) or not is_integer:
            expected = "(n, ...)" if not positions else f"(n, {', '.join(['size'] * positions)})"
            raise InputError(
                f"{name} must be class indices, one a position, of shape {expected}. Received: "
                f"shape {labels.shape}, type {labels.dtype}."
            )
        indices = labels.astype(np.int32)
        if labels.dtype == np.uint8 and classes <= 255:
            indices[labels == 255] = VOID
        return indices

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """Check that indices are in [0, names) or void; see `Task.check`."""
        non_void = labels[labels != VOID]
        if not non_void.size:
            raise InputError(
                f"Labels of '{name}' must be of a class somewhere. Received: all void (-1) in the "
                f"{part} part."
            )
        check_range(non_void, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        void = 255 if labels.dtype == np.uint8 else VOID
        return int(labels.max(where=labels != void, initial=0)) + 1

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the number of examples in which each class occurs."""
        axes = tuple(range(1, labels.ndim))
        return [int((labels == index).any(axes).sum()) for index in range(names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        return None

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over positions of the cross-entropy, (batch,).

        Void positions are excluded; an example with only void positions has loss 0.
        """
        labels = tf.cast(labels, tf.int32)
        is_valid = tf.cast(labels != VOID, tf.float32)
        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        position_losses = tf.nn.softmax_cross_entropy_with_logits(target, logits) * is_valid
        axes = tf.range(1, tf.rank(position_losses))
        return tf.reduce_sum(position_losses, axes) / tf.maximum(tf.reduce_sum(is_valid, axes), 1.0)

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the most frequent class, which is the best constant in every quality."""
        counts = np.bincount(labels[labels != VOID].ravel(), minlength=self.num_classes)
        yield expand_row(np.eye(self.num_classes)[counts.argmax()], labels, tuple(labels.shape[1:]))

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return the number of correct, predicted and actual positions of each class, by example.

        Shapes:
            (n, 3, classes). The predicted class has the largest score; void positions are excluded.
        """
        count, classes = len(labels), self.num_classes
        actual = labels.reshape(count, -1)
        predicted = scores.reshape(count, -1, classes).argmax(-1)
        is_valid = actual != VOID
        # one bin per class and example
        row = np.broadcast_to(np.arange(count)[:, None] * classes, actual.shape)

        def count_classes(
            selected: npt.NDArray[np.bool_], class_index: Array
        ) -> npt.NDArray[np.int64]:
            counts = np.bincount((row + class_index)[selected], minlength=count * classes)
            return counts.reshape(count, classes)

        role_counts = [
            count_classes(is_valid & (predicted == actual), actual),
            count_classes(is_valid, predicted),
            count_classes(is_valid, actual),
        ]
        return np.stack(role_counts, 1).astype(np.float64)

    def compute_from_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return the metrics from sums of `tallies`, (3, classes).

        mean_iou: mean over classes of correct / (predicted + actual - correct). dice: mean of 2
        correct / (predicted + actual). Both are over the classes that are predicted or actual
        somewhere. accuracy: share of right positions.
        """
        correct, predicted, actual = sums
        accuracy = float(correct.sum() / max(actual.sum(), 1.0))
        metrics = {**compute_overlap_metrics(correct, predicted, actual), "accuracy": accuracy}
        return {name: metrics[_METRIC_ALIASES.get(name, name)] for name in self.qualities}


class Segmentation(_PositionTask):
    """Classification of each pixel; labels (n, H, W) or (n, D, H, W).

    Labels of -1 are void: excluded from training and evaluation.

    Reference:
        Mean IoU and pixel accuracy: Long, Shelhamer & Darrell 2015, "Fully Convolutional Networks
        for Semantic Segmentation", section 5. Deviation: the mean excludes classes that are neither
        predicted nor actual.
    """

    name = "segmentation"
    qualities = ("mean_iou", "dice", "accuracy")
    least_agreement = 0.95


class Tagging(_PositionTask):
    """Classification of each position of a sequence; labels (n, length).

    Labels of -1 are void (padding): excluded from training and evaluation.
    """

    name = "tagging"
    qualities = ("accuracy", "f1_macro")


def _suggest_task(labels: Array) -> str:
    """Return a hint at the likely task of labels that are not class indices."""
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
