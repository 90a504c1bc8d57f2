"""Similarity-preserving: examples that are alike to the teacher are alike to the student."""

from __future__ import annotations

from typing import Any

from compress.distillation.losses._base import FeatureLoss, rows, weighted_mean

TINY = 1e-12


class SimilarityPreserving(FeatureLoss):
    """1 / b^2 ||G_teacher - G_student||_F^2 over a batch of b, as a mean over its rows.

    G = Q Q^T of the features as rows, each row of G of length 1. Shapes may differ freely.

    Reference:
        Tung & Mori 2019, "Similarity-Preserving Knowledge Distillation", eqs. 1 to 4; weight:
        their gamma = 3000. Deviation: examples count by their weights, in rows and columns.
    """

    name = "similarity"
    weight = 3000.0
    where = "embedding"

    def reduced(self, teacher: Any) -> Any:
        """Returns the teacher's features as rows."""
        return rows(teacher)

    def __call__(self, student: Any, teacher: Any, *, weights: Any) -> Any:
        """Returns the loss per example; see `FeatureLoss`."""
        import tensorflow as tf

        difference = _similarities(rows(student), weights) - _similarities(rows(teacher), weights)
        # 1 / b of the columns here, 1 / b of the rows in the mean over examples
        return weighted_mean(tf.square(difference), weights)


def _similarities(features: Any, weights: Any) -> Any:
    import tensorflow as tf

    found = tf.matmul(features, features, transpose_b=True)
    length = tf.reduce_sum(found * found * weights, axis=-1, keepdims=True)
    return found * tf.math.rsqrt(length + TINY**2)
