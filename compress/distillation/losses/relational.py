"""Relational distillation: distances and angles between examples."""

from __future__ import annotations

from typing import Any

from compress.distillation.losses._base import FeatureLoss, rows, weighted_mean

ROUNDING = 1e-6
"""Squared distances below this share of the squared lengths are 0 but for rounding."""


class Relational(FeatureLoss):
    """distance * RKD-D + angle * RKD-A, as a mean over the first example of pairs and triples.

    RKD-D: Huber loss (delta 1) between the distances of pairs, each divided by its mean over
    the pairs that differ. RKD-A: Huber loss between the cosines of the angle at the second of
    three examples. Time and memory grow with the batch's cube.

    Args:
        distance: Weight of the distances, at least 0.
        angle: Weight of the angles, at least 0.

    Reference:
        Park et al. 2019, "Relational Knowledge Distillation", eqs. 5 to 10; 1 to 2 and the
        weight of 25 as in their experiments (25 and 50). Deviation: examples count by their
        weights.
    """

    name = "relational"
    weight = 25.0
    where = "embedding"

    def __init__(self, distance: float = 1.0, angle: float = 2.0) -> None:
        self.distance, self.angle = distance, angle

    def reduced(self, teacher: Any) -> Any:
        """Returns the teacher's features as rows."""
        return rows(teacher)

    def __call__(self, student: Any, teacher: Any, *, weights: Any) -> Any:
        """Returns the loss per example; see `FeatureLoss`."""
        ours, theirs = _products(rows(student)), _products(rows(teacher))
        pairs = _huber(_distances(ours, weights) - _distances(theirs, weights))
        triples = _huber(_angles(ours) - _angles(theirs))
        # triples[i, j, k] is the angle at i between j and k
        at_vertex = weighted_mean(weighted_mean(triples, weights), weights)
        return self.distance * weighted_mean(pairs, weights) + self.angle * at_vertex


def _products(features: Any) -> Any:
    """Returns the inner products of all pairs, (batch, batch).

    About the mean: distances and angles do not change, and less is lost to rounding.
    """
    import tensorflow as tf

    features -= tf.reduce_mean(features, axis=0, keepdims=True)
    return tf.matmul(features, features, transpose_b=True)


def _lengths(products: Any) -> Any:
    """Returns Euclidean distances, (batch, batch); 0, with gradient 0, between equals."""
    import tensorflow as tf

    own = tf.linalg.diag_part(products)
    both = own[:, None] + own[None, :]
    squares = both - 2.0 * products
    zero = squares <= ROUNDING * both
    return tf.where(zero, 0.0, tf.sqrt(tf.where(zero, 1.0, squares)))


def _distances(products: Any, weights: Any) -> Any:
    """Returns distances over their mean over pairs that differ, (batch, batch)."""
    import tensorflow as tf

    lengths = _lengths(products)
    counted = weights[:, None] * weights[None, :] * tf.cast(lengths > 0, tf.float32)
    mean = tf.math.divide_no_nan(tf.reduce_sum(lengths * counted), tf.reduce_sum(counted))
    return tf.math.divide_no_nan(lengths, mean)


def _angles(products: Any) -> Any:
    """Returns the cosine at i between j and k, (batch i, batch j, batch k)."""
    import tensorflow as tf

    # (e_j - e_i) . (e_k - e_i), without the differences themselves, batch^2 x size numbers
    own = tf.linalg.diag_part(products)[:, None, None]
    inner = products[None, :, :] - products[:, :, None] - products[:, None, :] + own
    inverse = tf.math.divide_no_nan(1.0, _lengths(products))
    return inner * inverse[:, :, None] * inverse[:, None, :]


def _huber(difference: Any) -> Any:
    import tensorflow as tf

    size = tf.abs(difference)
    return tf.where(size < 1.0, 0.5 * tf.square(difference), size - 0.5)
