"""Attention transfer: where the energy of the features lies."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.core.errors import InputError
from compress.distillation.losses._base import FeatureLoss, Shape, rows
from compress.distillation.losses._shapes import pooled, smaller

TINY = 1e-12


class AttentionTransfer(FeatureLoss):
    """Mean over positions of (q_student - q_teacher)^2, per example.

    q is the map of sums over channels of squared features, as a vector of length 1. Where
    the resolutions differ, the larger map is average-pooled to the smaller.

    Reference:
        Zagoruyko & Komodakis 2017, "Paying More Attention to Attention", eq. 2 with F_sum^2.
        As in the authors' code the distance is squared and averaged over positions; weight:
        their beta = 1000.
    """

    name = "attention"
    weight = 1000.0
    where = "stages"

    def build(self, student: Shape, teacher: Shape, rng: np.random.Generator) -> list[Any]:
        """Checks that both have positions."""
        sizes = smaller(student, teacher)
        if not sizes:
            raise InputError(
                "Attention transfer must have layers with positions on both sides. Received: "
                f"outputs of shape {tuple(student)} and {tuple(teacher)}. Choose other pairs."
            )
        self._sizes = sizes
        return []

    def reduced(self, teacher: Any) -> Any:
        """Returns the teacher's map, (batch, positions)."""
        return self._map(teacher)

    def _map(self, features: Any) -> Any:
        import tensorflow as tf

        energy = tf.square(tf.cast(features, tf.float32))
        energy = tf.reduce_sum(energy, axis=-1, keepdims=True)
        flat = rows(pooled(energy, self._sizes))
        return flat * tf.math.rsqrt(tf.reduce_sum(flat * flat, axis=-1, keepdims=True) + TINY**2)

    def __call__(self, student: Any, teacher: Any, *, weights: Any = None) -> Any:
        """Returns the loss per example; see `FeatureLoss`."""
        import tensorflow as tf

        return tf.reduce_mean(tf.math.squared_difference(self._map(student), teacher), axis=-1)
