"""Masks from magnitudes: the k-th largest, tfmot's rule for one layer, an exact rule for many.

Graph code; every operation has a static shape, so it compiles under XLA too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SORTED = 1 << 17
"""Up to here sorting is as fast as counting."""
_HALF = 1 << 16


def keep_count(size: int, sparsity: Any) -> Any:
    """Returns how many of `size` units stay, at least one, int32.

    In float32 and with ties to even, as tfmot's `Pruning._update_mask` counts.
    """
    import tensorflow as tf

    share = 1.0 - tf.cast(sparsity, tf.float32)
    return tf.cast(tf.maximum(tf.round(tf.cast(size, tf.float32) * share), 1.0), tf.int32)


def kth_largest(magnitudes: Any, count: Any) -> Any:
    """Returns the `count`-th largest entry, exactly.

    Args:
        magnitudes: (n,), at least 0, float32 where n is large.
        count: int32 in [1, n].
    """
    import tensorflow as tf

    size = int(magnitudes.shape[0])
    if size <= SORTED or magnitudes.dtype != tf.float32:
        return tf.sort(magnitudes)[size - count]
    # non-negative floats are ordered as their bits: count by the upper, then by the lower half
    bits = tf.bitcast(magnitudes, tf.int32)
    upper = tf.bitwise.right_shift(bits, 16)
    high, above = _bin(tf.math.bincount(upper, minlength=_HALF, maxlength=_HALF), count)
    inside = tf.cast(tf.equal(upper, high), tf.int32)
    lower = tf.bitwise.bitwise_and(bits, _HALF - 1)
    counts = tf.math.bincount(lower, weights=inside, minlength=_HALF, maxlength=_HALF)
    low, _ = _bin(tf.cast(counts, tf.int32), count - above)
    return tf.bitcast(tf.bitwise.left_shift(high, 16) + low, tf.float32)


def _bin(counts: Any, rank: Any) -> tuple[Any, Any]:
    """Returns the bin that holds the `rank`-th largest, and how many lie in bins above."""
    import tensorflow as tf

    from_top = tf.cumsum(counts, reverse=True)  # entries in this bin and above
    chosen = tf.reduce_sum(tf.cast(from_top >= rank, tf.int32)) - 1
    return chosen, from_top[chosen] - counts[chosen]


def of_layer(magnitudes: Any, sparsity: Any) -> Any:
    """Returns which units of one layer stay: those at least as large as the k-th largest.

    Units that tie with the k-th largest all stay.

    Args:
        magnitudes: Of the units, any shape.
        sparsity: Share to leave, in [0, 1).

    Returns:
        Booleans of the magnitudes' shape.

    Reference:
        Zhu & Gupta 2017, "To prune, or not to prune", section 3; tfmot 0.8.1's
        `Pruning._update_mask`, bit by bit.
    """
    import tensorflow as tf

    flat = tf.reshape(magnitudes, (-1,))
    return magnitudes >= kth_largest(flat, keep_count(int(flat.shape[0]), sparsity))


def exactly(magnitudes: Sequence[Any], count: Any) -> list[Any]:
    """Returns which units of several layers stay: the `count` largest of all together.

    Of units that tie with the smallest that stays, the first stay: in the order of the
    layers, then in the order in which a weight's entries lie in memory.

    Args:
        magnitudes: One tensor a layer, any shapes.
        count: int32, at least 1.

    Returns:
        Booleans of the magnitudes' shapes.
    """
    import tensorflow as tf

    flat = tf.concat([tf.reshape(part, (-1,)) for part in magnitudes], axis=0)
    threshold = kth_largest(flat, count)
    larger, equal = flat > threshold, tf.equal(flat, threshold)
    room = count - tf.reduce_sum(tf.cast(larger, tf.int32))
    kept = larger | (equal & (tf.cumsum(tf.cast(equal, tf.int32)) <= room))
    parts = tf.split(kept, [part.shape.num_elements() for part in magnitudes])
    return [tf.reshape(part, whole.shape) for part, whole in zip(parts, magnitudes, strict=True)]
