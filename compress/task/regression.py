"""Numbers: squared error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress.task._base import Array, Floats, Task


@dataclass(frozen=True)
class Regression(Task):
    """`num_targets` numbers an example; labels (n, num_targets) are float32.

    Attributes:
        variance: Mean over targets of the variance of the training labels: what guessing
            the mean costs.
        means: Of the training labels, one a target; (): all 0.
    """

    num_targets: int
    variance: float = 1.0
    label_smoothing: float = 0.0
    means: tuple[float, ...] = field(default=(), repr=False)  # the repr says which training it is

    name = "regression"
    activation = "linear"
    qualities = ("r2",)

    @classmethod
    def of(cls, labels: Array) -> Regression:
        """Returns the task of training labels, (n, targets)."""
        exact = labels.astype(np.float64)
        variance = float(exact.var(axis=0).mean())
        means = tuple(float(mean) for mean in exact.mean(axis=0))
        # all labels 0: any positive number will do
        return cls(len(means), variance if variance or any(means) else 1.0, means=means)

    @classmethod
    def for_labels(cls, names: int, labels: Array | None) -> Regression:
        """Returns the task of so many targets; labels say what guessing costs."""
        return cls(names) if labels is None else cls.of(labels)

    @property
    def outputs(self) -> int:
        """The number of targets."""
        return self.num_targets

    def loss(self, labels: Any, logits: Any) -> Any:
        """Returns the mean over targets of the squared error, (batch,)."""
        import tensorflow as tf

        target = tf.reshape(tf.cast(labels, tf.float32), tf.shape(logits))
        return tf.reduce_mean(tf.math.squared_difference(logits, target), axis=-1)

    def chance_loss(self) -> float:
        """Returns the mean square of the labels: the cost of guessing 0, as untrained nets do."""
        return self.variance + sum(mean**2 for mean in self.means) / self.num_targets

    def chance(self) -> float:
        """Returns 0: the R^2 of guessing the mean."""
        return 0.0

    def quality(self, labels: Array, scores: Floats, *, threshold: float = 0.0) -> dict[str, float]:
        """Returns R^2 (mean over targets, at most 1), mean absolute and root mean squared error."""
        from sklearn.metrics import r2_score

        error = scores.astype(np.float64) - labels.reshape(scores.shape)
        return {
            "r2": float(r2_score(labels.reshape(scores.shape), scores)),
            "mae": float(np.abs(error).mean()),
            "rmse": float(np.sqrt((error**2).mean())),
        }

    def agreement(self, scores: Floats, reference: Floats, *, threshold: float = 0.0) -> float:
        """Returns R^2 of the scores against the reference."""
        from sklearn.metrics import r2_score

        return float(r2_score(reference, scores))
