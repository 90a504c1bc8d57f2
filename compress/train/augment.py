"""Random augmentation of image batches: a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.core.errors import InputError

REACH = 8
"""Images are shifted by up to 1 / REACH of their height and width."""


def check_augment(names: Sequence[str], input_shape: tuple[int, ...]) -> None:
    """Checks that there are images to augment.

    Raises:
        InputError: Augmentation is asked for and examples are no (H, W, C).
    """
    if names and len(input_shape) != 3:
        raise InputError(
            f"augment must be used on images (height, width, channels). Received: examples of "
            f"shape {input_shape}. Leave augment empty."
        )


def augmented(images: Any, names: Sequence[str], seed: int, step: Any) -> Any:
    """Returns the batch, randomly changed; equal seeds and steps give equal changes.

    Args:
        images: (batch, H, W, C), as stored, any type.
        names: Of "flip" (left to right, every second image on average) and "shift" (by up to
            an eighth of height and width, what comes in is 0).
        seed: Of the training.
        step: int64 scalar tensor.

    Returns:
        Images of the same shape and type.
    """
    import tensorflow as tf

    if not names:
        return images
    keys = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    if "flip" in names:
        chosen = tf.random.stateless_uniform((batch, 1, 1, 1), keys) < 0.5
        images = tf.where(chosen, tf.reverse(images, axis=[2]), images)
    if "shift" in names:
        high, wide = max(1, height // REACH), max(1, width // REACH)
        padded = tf.pad(images, ((0, 0), (high, high), (wide, wide), (0, 0)))
        for axis, reach, size in ((1, high, height), (2, wide, width)):
            start = tf.random.stateless_uniform(
                (batch, 1), keys + axis, 0, 2 * reach + 1, dtype=tf.int32
            )
            places = start + tf.range(size)  # (batch, size)
            padded = tf.gather(padded, places, axis=axis, batch_dims=1)
        images = padded
    return images
