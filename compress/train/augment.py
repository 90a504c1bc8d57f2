"""Random augmentation of image batches: a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import VOID, has_positions

REACH = 8
"""Images are shifted by up to 1 / REACH of their height and width."""


def check_augment(names: Sequence[str], data: Dataset) -> None:
    """Checks that there are images to augment, and labels that can be moved with them.

    Raises:
        InputError: Augmentation is asked for and examples are no (H, W, C), or labels by position
            cannot follow.
    """
    if not names:
        return
    shape, positions = data.input_shape, data.task.output_shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"augment must be used on images (height, width, channels). Received: examples of "
            f"shape {shape}. Leave augment empty."
        )
    if not positions or data.gives_back:
        return
    if positions != shape[:2]:
        raise InputError(
            "augment must move labels with their images: they must have the images' height and "
            f"width. Received: labels at {positions} positions, images of {shape[:2]}."
        )
    if "shift" in names and not has_positions(data.kind):
        raise InputError(
            "augment must leave no positions without a label: 'shift' needs classes, of which one "
            f"may be void. Received: a {data.kind} task. Use 'flip' alone."
        )


def moved(labels: Any, data: Dataset, names: Sequence[str], seed: int, step: Any) -> Any:
    """Returns labels by position changed as `augmented` changes their images; others stay.

    Args:
        labels: (batch, ...), as the data set holds them; what comes in at the edges is void.
        data: They are of.
        names, seed, step: See `augmented`.
    """
    if not names or not data.task.output_shape[:-1]:
        return labels
    if has_positions(data.kind):
        return augmented(labels[..., None], names, seed, step, fill=VOID)[..., 0]
    return augmented(labels, names, seed, step)


def augmented(images: Any, names: Sequence[str], seed: int, step: Any, *, fill: int = 0) -> Any:
    """Returns the batch, randomly changed; equal seeds and steps give equal changes.

    Args:
        images: (batch, H, W, C), as stored, any type.
        names: Of "flip" (left to right, every second image on average) and "shift" (by up to
            an eighth of height and width).
        seed: Of the training.
        step: int64 scalar tensor.
        fill: What comes in at the edges.

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
        padded = tf.pad(images, ((0, 0), (high, high), (wide, wide), (0, 0)), constant_values=fill)
        for axis, reach, size in ((1, high, height), (2, wide, width)):
            start = tf.random.stateless_uniform(
                (batch, 1), keys + axis, 0, 2 * reach + 1, dtype=tf.int32
            )
            places = start + tf.range(size)  # (batch, size)
            padded = tf.gather(padded, places, axis=axis, batch_dims=1)
        images = padded
    return images
