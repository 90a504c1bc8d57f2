"""Losses of a user's own that depend on the whole batch."""

from __future__ import annotations

from typing import Any

from compress.distillation.losses import FeatureLoss, LogitLoss


class Centred(LogitLoss):
    """Mean squared difference of the logits, less what it is on average over the batch."""

    name = "centred"

    def __call__(
        self, student: Any, teacher: Any, *, temperature: Any, labels: Any, weights: Any
    ) -> Any:
        """Returns the loss per example."""
        import tensorflow as tf

        gap = tf.cast(student, tf.float32) - tf.cast(teacher, tf.float32)
        return tf.reduce_mean((gap - _mean(gap, weights)) ** 2, axis=-1)

    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Returns more than any loss of these tests."""
        return 1e3


class Spread(FeatureLoss):
    """Squared difference of how far an example's features lie from the batch's mean."""

    name = "spread"
    weight = 1.0

    def reduced(self, teacher: Any) -> Any:
        """Returns the mean over positions, (batch, channels)."""
        import tensorflow as tf

        features = tf.cast(teacher, tf.float32)
        return tf.reduce_mean(features, axis=list(range(1, len(features.shape) - 1)))

    def __call__(self, student: Any, teacher: Any, *, weights: Any) -> Any:
        """Returns the loss per example."""
        gap = _distances(self.reduced(student), weights) - _distances(teacher, weights)
        return gap**2


def _distances(features: Any, weights: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean((features - _mean(features, weights)) ** 2, axis=-1)


def _mean(values: Any, weights: Any) -> Any:
    import tensorflow as tf

    return tf.linalg.matvec(values, weights, transpose_a=True) / tf.reduce_sum(weights)
