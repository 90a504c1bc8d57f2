"""Lists of arrays that must be the same: two empty lists are no evidence of anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def same_arrays(
    one: Iterable[Any], two: Iterable[Any], *, rtol: float = 0.0, atol: float = 0.0
) -> None:
    """Asserts that there are as many arrays, at least one, and each equals its partner."""
    left, right = list(one), list(two)
    assert left, "there must be arrays to compare"
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
