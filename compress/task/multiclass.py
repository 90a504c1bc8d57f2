"""One class of several: softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.task._base import Array, Floats
from compress.task.of_classes import OfClasses


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

    def chance(self) -> float:
        """Returns 1 / K."""
        return 1.0 / self.num_classes

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
