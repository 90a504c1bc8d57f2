"""Bringing features of two networks to common shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.distillation.losses._base import Shape


def smaller(student: Shape, teacher: Shape) -> tuple[int, ...] | None:
    """Returns the positions (height, width) that both shapes are brought to.

    Args:
        student: (batch, ..., channels).
        teacher: Likewise.

    Returns:
        The smaller size of each axis; None where the ranks differ: positions then have to be
        averaged away.

    Raises:
        InputError: A size is unknown while the model is built.
    """
    if len(student) != len(teacher):
        return None
    for shape in (student, teacher):
        if any(size is None for size in shape[1:]):
            raise InputError(
                "Layers of a hint pair must have known output shapes. Received: "
                f"{tuple(shape)}. Build the model with a fixed input shape."
            )
    pairs = zip(student[1:-1], teacher[1:-1], strict=True)
    return tuple(min(int(a or 0), int(b or 0)) for a, b in pairs)


def pooled(features: Any, sizes: Sequence[int]) -> Any:
    """Returns features averaged to `sizes` positions, float32.

    Window i of an axis of n positions covers floor(i n / m) to ceil((i + 1) n / m), as
    adaptive average pooling does.

    Args:
        features: (batch, positions ..., channels).
        sizes: m for every position axis.
    """
    import tensorflow as tf

    features = tf.cast(features, tf.float32)
    for axis, size in enumerate(sizes, start=1):
        if features.shape[axis] != size:
            matrix = tf.constant(_averaging(int(features.shape[axis]), size))
            moved = tf.tensordot(features, matrix, axes=([axis], [1]))
            last = len(features.shape) - 1
            order = [*range(axis), last, *range(axis, last)]
            features = tf.transpose(moved, order)
    return features


def averaged(features: Any) -> Any:
    """Returns features averaged over all positions, (batch, channels), float32."""
    import tensorflow as tf

    axes = list(range(1, len(features.shape) - 1))
    features = tf.cast(features, tf.float32)
    return tf.reduce_mean(features, axis=axes) if axes else features


def _averaging(size: int, target: int) -> npt.NDArray[np.float32]:
    """Returns the matrix (target, size) whose rows average windows."""
    matrix = np.zeros((target, size), np.float32)
    for row in range(target):
        low, high = row * size // target, -(-(row + 1) * size // target)
        matrix[row, low:high] = 1.0 / (high - low)
    return matrix
