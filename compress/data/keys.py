"""Hashes by which examples are known again, whatever file, seed or scaling they come under."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from compress.core.columns import Columns, count

LEVELS = 31
"""Steps that the values of an image's channel are told apart by."""
OFFSET = 0.6180339887
"""Where steps begin. Values are fractions k/m with m up to 255, and this number is far from all
of them: rounding of the same pixels in another scale does not move one over a step."""
LEAST_VALUES = 64
"""Channels of fewer values are hashed as they are: little else tells rows of a table apart."""
CHUNK = 1 << 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with bits all over: what keys of several arrays are mixed by."""


def example_keys(x: Columns) -> npt.NDArray[np.uint64]:
    """Returns one hash an example.

    Images that differ by a factor or an offset per channel (bytes, [0, 1], standardized) have
    the same hash; rows of features have it where their float32 values are equal. Different
    examples have the same one with a chance of 5e-20 a pair, unless they are equal in all of
    `LEVELS` steps between each channel's least and largest value.

    Args:
        x: Raw examples, shape (n, ...); numbers. Of several arrays by name a hash is of all.

    Returns:
        (n,), in the examples' order.
    """
    if isinstance(x, Mapping):
        together = np.zeros(count(x), np.uint64)
        for _, values in sorted(x.items()):
            with np.errstate(over="ignore"):
                together = together * _FACTOR + example_keys(values)
        return together
    keys = np.empty(len(x), np.uint64)
    size = max(1, CHUNK // max(1, int(np.prod(x.shape[1:]))))
    for start in range(0, len(x), size):
        part = np.asarray(x[start : start + size]).astype(np.float32)
        rows = part.reshape(len(part), -1) + 0.0  # -0.0 is 0.0
        steps = _steps(part) if has_steps(part.shape[1:]) else None
        for place, row in enumerate(rows):
            # of an image of one colour nothing would be left
            plain = steps is None or not steps[place].any()
            content = row.tobytes() if plain or steps is None else steps[place].tobytes()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            keys[start + place] = int.from_bytes(digest, "little")
    return keys


def is_among(keys: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which keys are among others, (n,)."""
    # its other way overflows for large numbers in NumPy 2.0
    among: npt.NDArray[np.bool_] = np.isin(keys, others, kind="sort")
    return among


def has_steps(shape: tuple[int, ...]) -> bool:
    """Tell whether examples are recognized in any scale of their channels.

    Args:
        shape: Of one example.
    """
    return len(shape) >= 2 and int(np.prod(shape[:-1])) >= LEAST_VALUES


def _steps(part: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Returns each value's step between its channel's least and largest value, from 0."""
    axes = tuple(range(1, part.ndim - 1))
    low = part.min(axis=axes, keepdims=True)
    span = part.max(axis=axes, keepdims=True) - low
    shares = (part - low) / np.where(span > 0, span, 1)
    steps: npt.NDArray[np.uint8] = np.floor(shares * LEVELS + OFFSET).astype(np.uint8)
    return steps
