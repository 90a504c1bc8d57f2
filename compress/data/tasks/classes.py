"""One class of several, of an example or at every position (of an image, a sequence): softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data.tasks._base import (
    Array,
    Floats,
    Tallied,
    Task,
    check_range,
    overlaps,
    repeat_row,
)

VOID = -1
"""The label of positions that are neither learnt nor judged."""
_SAME = {"f1_macro": "dice"}
"""Dice's coefficient of a class is its F1."""
_SHUFFLES = 40
"""Unrelated answers whose spread is looked at: it is known within 11 %."""


@dataclass(frozen=True)
class _OneOfSeveral(Task):
    num_classes: int
    label_smoothing: float = 0.0

    activation = "softmax"
    noun = "classes"

    @property
    def outputs(self) -> int:
        return self.num_classes

    def chance_loss(self) -> float:
        """Return log K: the cross-entropy of a uniform guess with any target."""
        return math.log(self.num_classes)

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Return the share of examples or positions with the same largest score."""
        return float((scores.argmax(-1) == reference.argmax(-1)).mean())


class OfClasses(Task):
    """Base of tasks whose labels are class indices, (n,)."""

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
        """Return the number of different classes."""
        return len(np.unique(labels))

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        """Return the examples of each class."""
        return [int(n) for n in np.bincount(labels, minlength=names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        """Return their sum: an example is of one class."""
        return sum(counts)


@dataclass(frozen=True)
class MultiClass(OfClasses, _OneOfSeveral):
    """Classification into `num_classes` classes; labels (n,) are indices.

    Reference:
        Label smoothing: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.
    """

    name = "multiclass"
    qualities = ("accuracy", "f1_macro", "precision_macro", "recall_macro")
    shares = ("accuracy",)

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return -sum_k q_k log softmax(logits)_k, q = (1 - s) onehot + s / K, (batch,)."""
        import tensorflow as tf

        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return tf.nn.softmax_cross_entropy_with_logits(target, logits)

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
        """Return accuracy, and the unweighted means over classes of precision, recall and F1.

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
        return np.asarray(scores.argmax(axis=-1) == labels)


@dataclass(frozen=True)
class _ByPosition(Tallied, _OneOfSeveral):
    positions: tuple[int, ...] = field(default=(), repr=False)

    classes = True
    tally_rows = 3

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Self:
        return cls(names, positions=() if labels is None else tuple(labels.shape[1:]))

    @classmethod
    def read(cls, labels: Array, name: str, shape: tuple[int | None, ...] = ()) -> Array:
        """See `Task.read`: indices, one a position, become int32; 255 of bytes is void."""
        positions, classes = max(0, len(shape) - 1), (shape[-1] if shape else None) or 0
        if positions and labels.ndim == positions + 2:  # of one number, or one-hot
            if labels.shape[-1] == 1:
                labels = labels[..., 0]
            elif labels.shape[-1] == classes:
                if not (np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all()):
                    raise InputError(
                        f"{name} must be class indices or one-hot. Received: other rows."
                    )
                labels = labels.argmax(-1)
        whole = labels.dtype.kind in "iub" or (
            labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
        )
        if labels.ndim < 2 or (positions and labels.ndim - 1 != positions) or not whole:
            wanted = "(n, ...)" if not positions else f"(n, {', '.join(['size'] * positions)})"
            raise InputError(
                f"{name} must be class indices, one a position, of shape {wanted}. Received: shape "
                f"{labels.shape}, type {labels.dtype}."
            )
        found = labels.astype(np.int32)
        if labels.dtype == np.uint8 and classes <= 255:
            found[labels == 255] = VOID
        return found

    @classmethod
    def check(cls, labels: Array, part: str, name: str, names: int) -> None:
        """See `Task.check`: indices are in [0, names), or void."""
        known = labels[labels != VOID]
        if not known.size:
            raise InputError(
                f"Labels of '{name}' must be of a class somewhere. Received: all void (-1) in the "
                f"{part} part."
            )
        check_range(known, part, name, names)

    @classmethod
    def names_of(cls, labels: Array) -> int:
        return int(labels.max()) + 1

    @classmethod
    def counts(cls, labels: Array, names: int) -> list[int]:
        axes = tuple(range(1, labels.ndim))
        return [int((labels == index).any(axes).sum()) for index in range(names)]

    @classmethod
    def counted(cls, counts: list[int]) -> int | None:
        return None

    def loss(self, labels: Any, logits: Any) -> Any:
        """Return the mean over positions of the cross-entropy, (batch,).

        Void positions are left out; an example of nothing else costs 0.
        """
        import tensorflow as tf

        labels = tf.cast(labels, tf.int32)
        known = tf.cast(labels != VOID, tf.float32)
        target = tf.one_hot(labels, self.num_classes)
        target = target * (1.0 - self.label_smoothing) + self.label_smoothing / self.num_classes
        each = tf.nn.softmax_cross_entropy_with_logits(target, logits) * known
        axes = tf.range(1, tf.rank(each))
        return tf.reduce_sum(each, axes) / tf.maximum(tf.reduce_sum(known, axes), 1.0)

    def constants(self, labels: Array) -> Iterator[Array]:
        """Yield the most frequent class: no other constant answer is better in any quality."""
        counts = np.bincount(labels[labels != VOID].ravel(), minlength=self.num_classes)
        yield repeat_row(np.eye(self.num_classes)[counts.argmax()], labels, tuple(labels.shape[1:]))

    def tallies(
        self, labels: Array, scores: Floats, *, threshold: float = 0.0
    ) -> npt.NDArray[np.float64]:
        """Return counts of right, predicted and true positions of each class, by example.

        Shapes:
            (n, 3, classes). The largest score wins; void positions are left out.
        """
        count, classes = len(labels), self.num_classes
        true = labels.reshape(count, -1)
        said = scores.reshape(count, -1, classes).argmax(-1)
        known = true != VOID
        # one bin a class and example
        row = np.broadcast_to(np.arange(count)[:, None] * classes, true.shape)

        def binned(chosen: npt.NDArray[np.bool_], of: Array) -> npt.NDArray[np.int64]:
            counts = np.bincount((row + of)[chosen], minlength=count * classes)
            return counts.reshape(count, classes)

        found = [binned(known & (said == true), true), binned(known, said), binned(known, true)]
        return np.stack(found, 1).astype(np.float64)

    def of_tallies(self, sums: npt.NDArray[np.float64]) -> dict[str, float]:
        """Return qualities of sums of `tallies`, (3, classes).

        mean_iou: the mean over classes of right / (said + true - right); dice: of
        2 right / (said + true); both over the classes that are said or true somewhere.
        accuracy: the share of positions that are right.
        """
        right, said, true = sums
        accuracy = float(right.sum() / max(true.sum(), 1.0))
        found = {**overlaps(right, said, true), "accuracy": accuracy}
        return {name: found[_SAME.get(name, name)] for name in self.qualities}


class Segmentation(_ByPosition):
    """Classification of each pixel; labels (n, H, W) or (n, D, H, W).

    Labels of -1 are void: neither learnt nor judged.

    Reference:
        Mean IoU and pixel accuracy: Long, Shelhamer & Darrell 2015, "Fully Convolutional
        Networks for Semantic Segmentation", section 5. Deviation: classes that are neither
        predicted nor there are no part of the mean.
    """

    name = "segmentation"
    qualities = ("mean_iou", "dice", "accuracy")
    least_agreement = 0.95


class Tagging(_ByPosition):
    """Classification of each position of a sequence; labels (n, length).

    Labels of -1 are void (padding): neither learnt nor judged.
    """

    name = "tagging"
    qualities = ("accuracy", "f1_macro")


def _other_task(labels: Array) -> str:
    """Return a hint at the likely task of labels that are no class indices."""
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
