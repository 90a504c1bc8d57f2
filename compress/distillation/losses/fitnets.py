"""FitNets: a feature loss between projected student features and teacher features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.distillation.losses import FeatureLoss, Shape


class FitNets(FeatureLoss):
    """Half the mean over elements of (teacher - projection(student))^2, per example.

    The projection to the teacher's channels is a learned linear map (a 1 x 1 convolution, or a
    dense layer for vectors). It is trained with the student and then discarded. If the resolutions
    differ, the larger one is average-pooled to the smaller one; if the ranks differ, both are
    averaged over all positions.

    Reference:
        Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", eq. 3. Differences: the mean over
        elements instead of the sum, so that the loss does not depend on the size of the layer; the
        hint is active during the whole training, not in a separate first stage.
    """

    name = "fitnets"
    weight = 1.0

    def build(self, student: Shape, teacher: Shape, rng: np.random.Generator) -> list[Any]:
        """Create the projection with Glorot uniform weights and zero bias."""
        self._sizes = _find_common_sizes(student, teacher)
        wide, narrow = int(teacher[-1] or 0), int(student[-1] or 0)
        reach = np.sqrt(6.0 / (wide + narrow))
        kernel = rng.uniform(-reach, reach, (narrow, wide)).astype(np.float32)
        self.kernel = keras.Variable(kernel, name="hint_kernel")
        self.bias = keras.Variable(np.zeros(wide, np.float32), name="hint_bias")
        return [self.kernel, self.bias]

    def reduced(self, teacher: Any) -> Any:
        """Return features of the teacher or the student at the common resolution, float32."""
        if self._sizes is None:
            return _average_positions(teacher)
        return pool_features(teacher, self._sizes)

    def __call__(self, student: Any, teacher: Any, *, weights: Any = None) -> Any:
        """Return the loss per example; see `FeatureLoss`."""
        projected = tf.tensordot(self.reduced(student), self.kernel.value, 1) + self.bias.value
        squares = tf.math.squared_difference(projected, tf.cast(teacher, tf.float32))
        return 0.5 * tf.reduce_mean(squares, axis=list(range(1, len(teacher.shape))))


def _find_common_sizes(student: Shape, teacher: Shape) -> tuple[int, ...] | None:
    """Return the smaller size of each position axis of two shapes, (batch, ..., channels).

    None if the ranks differ: the features are then averaged over all positions.

    Raises:
        InputError: A size is unknown.
    """
    if len(student) != len(teacher):
        return None
    for shape in (student, teacher):
        if any(size is None for size in shape[1:]):
            raise InputError(
                "Layers of a feature pair must have known output shapes. Received: "
                f"{tuple(shape)}. Build the model with a fixed input shape."
            )
    pairs = zip(student[1:-1], teacher[1:-1], strict=True)
    return tuple(min(int(a or 0), int(b or 0)) for a, b in pairs)


def pool_features(features: Any, sizes: Sequence[int]) -> Any:
    """Return features average-pooled to `sizes` positions, float32.

    As in adaptive average pooling, window i of an axis of n positions covers floor(i n / m) to
    ceil((i + 1) n / m).

    Args:
        features: (batch, positions ..., channels).
        sizes: Number of windows m for every position axis.
    """
    features = tf.cast(features, tf.float32)
    for axis, size in enumerate(sizes, start=1):
        if features.shape[axis] != size:
            matrix = tf.constant(_build_pooling_matrix(int(features.shape[axis]), size))
            pooled = tf.tensordot(features, matrix, axes=([axis], [1]))
            features = keras.ops.moveaxis(pooled, -1, axis)
    return features


def _average_positions(features: Any) -> Any:
    """Return features averaged over all positions, (batch, channels), float32."""
    axes = list(range(1, len(features.shape) - 1))
    features = tf.cast(features, tf.float32)
    return tf.reduce_mean(features, axis=axes) if axes else features


def _build_pooling_matrix(size: int, target: int) -> npt.NDArray[np.float32]:
    """Return the averaging matrix of adaptive pooling, (target, size)."""
    matrix = np.zeros((target, size), np.float32)
    for row in range(target):
        low, high = row * size // target, -(-(row + 1) * size // target)
        matrix[row, low:high] = 1.0 / (high - low)
    return matrix
