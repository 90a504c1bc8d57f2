"""DIST: correlation instead of equality, within examples and within classes."""

from __future__ import annotations

from typing import Any

from compress.distillation.losses._base import LogitLoss

CONSTANT = 1e-6
"""Rows that vary by less than this, relative to their size, vary by rounding alone."""


class DIST(LogitLoss):
    """T^2 (beta * (1 - r of the example's row) + gamma * (1 - mean r of the classes' columns)).

    r is Pearson's correlation between student and teacher: over the classes of one example
    (inter-class), and over the examples of the batch for one class (intra-class).

    Args:
        beta: Weight of the inter-class part, at least 0.
        gamma: Weight of the intra-class part, at least 0.

    Reference:
        Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", eqs. 7 to 9.
        The factor T^2 is in the authors' code, not in the paper. Deviation: a constant row or
        column has correlation 0; examples count by their weights.
    """

    name = "dist"

    def __init__(self, beta: float = 1.0, gamma: float = 1.0) -> None:
        self.beta, self.gamma = beta, gamma

    def chance_loss(self, outputs: int, temperature: float) -> float:
        """Returns the cost of no correlation at all."""
        return temperature**2 * (self.beta + self.gamma)

    def __call__(
        self, student: Any, teacher: Any, *, temperature: Any, labels: Any = None, weights: Any
    ) -> Any:
        """Returns the loss per example; see `LogitLoss`."""
        import tensorflow as tf

        student = tf.nn.softmax(tf.cast(student, tf.float32) / temperature)
        teacher = tf.nn.softmax(tf.cast(teacher, tf.float32) / temperature)
        even = tf.ones((student.shape[-1],), tf.float32)
        inter = 1.0 - _correlation(student, teacher, even)  # (batch,)
        columns = _correlation(tf.transpose(student), tf.transpose(teacher), weights)  # (classes,)
        intra = 1.0 - tf.reduce_mean(columns)
        return temperature**2 * (self.beta * inter + self.gamma * intra)


def _correlation(a: Any, b: Any, weights: Any) -> Any:
    """Returns the weighted Pearson correlation of rows, (rows,)."""
    import tensorflow as tf

    share = weights / tf.reduce_sum(weights)
    a, b = _centred(a, share), _centred(b, share)
    product = tf.reduce_sum(a * a * share, axis=-1) * tf.reduce_sum(b * b * share, axis=-1)
    constant = product <= 0
    # the root's gradient at 0 is infinite: it is taken of 1 there
    root = tf.sqrt(tf.where(constant, 1.0, product))
    return tf.where(constant, 0.0, tf.reduce_sum(a * b * share, axis=-1) / root)


def _centred(values: Any, share: Any) -> Any:
    """Returns rows less their weighted means, scaled to a largest size of 1; 0 where constant."""
    import tensorflow as tf

    apart = values - tf.reduce_sum(values * share, axis=-1, keepdims=True)
    largest = tf.reduce_max(tf.abs(apart), axis=-1, keepdims=True)
    size = tf.reduce_max(tf.abs(values), axis=-1, keepdims=True)
    # a correlation does not change with scale, so the scale needs no gradient
    scale = tf.stop_gradient(tf.where(largest > CONSTANT * size, 1.0 / largest, 0.0))
    return apart * scale
