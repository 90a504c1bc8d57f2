"""FitNets: the student's features, projected, equal the teacher's."""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.distillation.losses._base import FeatureLoss, Shape
from compress.distillation.losses._shapes import averaged, pooled, smaller


class FitNets(FeatureLoss):
    """Half the mean over elements of (teacher - projection(student))^2, per example.

    The projection to the teacher's channels is a learned linear map (a 1 x 1 convolution; a
    dense layer on vectors), trained with the student and thrown away. Where the resolutions
    differ, the larger one is average-pooled to the smaller; where the ranks differ, both are
    averaged over all positions.

    Reference:
        Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", eq. 3. Deviations: the mean
        over elements instead of their sum, so that the size of the loss does not depend on
        the layer's; the hint acts during the whole training, not in a stage before it.
    """

    name = "fitnets"
    weight = 1.0
    where = "middle"

    def build(self, student: Shape, teacher: Shape, rng: np.random.Generator) -> list[Any]:
        """Makes the projection: Glorot uniform, no bias at the start."""
        import keras

        self._sizes = smaller(student, teacher)
        wide, narrow = int(teacher[-1] or 0), int(student[-1] or 0)
        reach = np.sqrt(6.0 / (wide + narrow))
        kernel = rng.uniform(-reach, reach, (narrow, wide)).astype(np.float32)
        self.kernel = keras.Variable(kernel, name="hint_kernel")
        self.bias = keras.Variable(np.zeros(wide, np.float32), name="hint_bias")
        return [self.kernel, self.bias]

    def reduced(self, teacher: Any) -> Any:
        """Returns the teacher's features at the common resolution."""
        return self._common(teacher)

    def _common(self, features: Any) -> Any:
        if self._sizes is None:
            return averaged(features)
        return pooled(features, self._sizes)

    def __call__(self, student: Any, teacher: Any, *, weights: Any = None) -> Any:
        """Returns the loss per example; see `FeatureLoss`."""
        import tensorflow as tf

        projected = tf.matmul(_rows(self._common(student)), self.kernel.value) + self.bias.value
        wanted = _rows(tf.cast(teacher, tf.float32))
        squares = tf.reduce_mean(tf.math.squared_difference(projected, wanted), axis=-1)
        positions = int(np.prod(teacher.shape[1:-1]))
        return 0.5 * tf.reduce_mean(tf.reshape(squares, (-1, positions)), axis=-1)


def _rows(features: Any) -> Any:
    """Returns (batch x positions, channels)."""
    import tensorflow as tf

    return tf.reshape(features, (-1, features.shape[-1]))
