"""A loss on features of a user's own that depends on the whole batch."""

from __future__ import annotations

from typing import Any

from compress.distillation.losses import FeatureLoss


class Spread(FeatureLoss):
    """Squared difference of how far an example's features lie from the batch's mean."""

    name = "spread"
    weight = 1.0

    def __init__(self, where: str = "embedding") -> None:
        self.where = where

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

    mean = tf.linalg.matvec(features, weights, transpose_a=True) / tf.reduce_sum(weights)
    return tf.reduce_mean((features - mean) ** 2, axis=-1)
