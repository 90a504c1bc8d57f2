"""Hashes that recognize examples across files and seeds.

Images are hashed by their quantized values, and so recognized in any scale of their channels. Rows
of a table are hashed by their float32 values: in another scale they are other examples.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from compress.core.arrays import Columns, count_examples

NUM_STEPS = 31
"""Number of quantization steps for the values of an image channel."""
STEP_OFFSET = 0.6180339887
"""Offset of the quantization steps.

Values are fractions k/m with m up to 255, and this number is far from all of them: rounding of the
same pixels in another scale does not move a value across a step.
"""
MIN_IMAGE_VALUES = 64
"""Smallest number of values per channel that is quantized; smaller examples are hashed exactly."""
CHUNK_VALUES = 1 << 22
_MIX_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd factor with bits in all positions, which combines the hashes of several arrays."""


def hash_examples(x: Columns) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each example.

    Images that differ by a factor or an offset per channel (bytes, [0, 1], standardized) have the
    same hash; rows of tables and sequences of fewer than `MIN_IMAGE_VALUES` positions have the same
    hash if their float32 values are equal. Different examples collide with a probability of 5e-20
    per pair, unless they are equal after each channel is quantized to `NUM_STEPS` steps between its
    minimum and maximum.

    Args:
        x: Raw examples, shape (n, ...), numbers; several arrays by name are hashed together.

    Returns:
        (n,), in the order of the examples.
    """
    if isinstance(x, Mapping):
        combined = np.zeros(count_examples(x), np.uint64)
        for _, values in sorted(x.items()):
            with np.errstate(over="ignore"):
                combined = combined * _MIX_FACTOR + hash_examples(values)
        return combined
    keys = np.empty(len(x), np.uint64)
    size = max(1, CHUNK_VALUES // max(1, math.prod(x.shape[1:])))
    is_quantized = x.ndim >= 3 and math.prod(x.shape[1:-1]) >= MIN_IMAGE_VALUES
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size]).astype(np.float32)
        rows = part.reshape(len(part), -1) + 0.0  # -0.0 becomes 0.0
        steps = _quantize_channels(part) if is_quantized else None
        for index, row in enumerate(rows):
            # all images of one colour would get the same hash
            is_constant = steps is None or not steps[index].any()
            content = row.tobytes() if is_constant or steps is None else steps[index].tobytes()
            keys[start + index] = int.from_bytes(
                hashlib.blake2b(content, digest_size=8).digest(), "little"
            )
    return keys


def is_among(keys: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return a mask of the keys that occur in `others`, (n,)."""
    # the default method overflows for large numbers in NumPy 2.0
    return np.asarray(np.isin(keys, others, kind="sort"))


def _quantize_channels(part: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return the quantization step of each value within its channel's range, from 0."""
    positions = part.reshape(len(part), -1, part.shape[-1])
    low = _reduce_positions(np.minimum, positions)
    span = _reduce_positions(np.maximum, positions) - low
    shares = (positions - low) / np.where(span > 0, span, 1)
    steps = np.floor(shares * NUM_STEPS + STEP_OFFSET).astype(np.uint8)
    return np.asarray(steps.reshape(part.shape))


def _reduce_positions(ufunc: np.ufunc, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the minimum or maximum over positions, (n, 1, channels).

    NumPy's own is five times slower for three channels: its inner loop is over these.

    Args:
        ufunc: `np.minimum` or `np.maximum`.
        values: (n, positions, channels).
    """
    while values.shape[1] > 1:
        half = -(-values.shape[1] // 2)
        values = ufunc(values[:, :half], values[:, -half:])
    return values
