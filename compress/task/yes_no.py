"""Yes or no, once (binary) or for each of several labels (multi-label): sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.task._base import Array, Floats, Task


def sigmoid_loss(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Returns the mean over labels of the binary cross-entropy, (batch,).

    Args:
        labels: (batch,) or (batch, labels), 0 or 1.
        logits: (batch, labels), float32.
        label_smoothing: s: a target y becomes y (1 - s) + s / 2.
    """
    import tensorflow as tf

    target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
    target = target * (1.0 - label_smoothing) + label_smoothing / 2
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, logits), axis=-1)


class _YesNo(Task):
    activation = "sigmoid"

    def chance_loss(self) -> float:
        """Returns log 2."""
        return math.log(2.0)

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Returns the share of equal yes/no decisions."""
        return float(((scores > threshold) == (reference > threshold)).mean())


@dataclass(frozen=True)
class Binary(_YesNo):
    """Two classes and one output; labels (n,) are 0 (the first class) or 1."""

    label_smoothing: float = 0.0

    name = "binary"
    indices = True
    qualities = ("accuracy", "f1", "precision", "recall", "roc_auc")
    shares = ("accuracy",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Binary:
        """Returns the task: there is one of it."""
        return cls()

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the binary cross-entropy, (batch,)."""
        return sigmoid_loss(labels, logits, self.label_smoothing)

    def chance(self) -> float:
        """Returns 1/2."""
        return 0.5

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns accuracy; precision, recall and F1 of class 1; area under the ROC curve.

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


@dataclass(frozen=True)
class MultiLabel(_YesNo):
    """Any number of `num_labels` labels; labels (n, num_labels) are 0 or 1."""

    num_labels: int
    label_smoothing: float = 0.0

    name = "multilabel"
    qualities = ("f1_macro", "f1_micro", "accuracy", "exact_match")
    shares = ("exact_match",)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> MultiLabel:
        """Returns the task of so many labels."""
        return cls(names)

    @property
    def outputs(self) -> int:
        """The number of labels."""
        return self.num_labels

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the mean binary cross-entropy of the labels, (batch,)."""
        return sigmoid_loss(labels, logits, self.label_smoothing)

    def chance(self) -> float:
        """Returns 0: the F1 of a guess depends on how frequent labels are."""
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns F1 (mean over labels, and pooled), the share of right yes/no decisions and
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
