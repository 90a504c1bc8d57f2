"""The front against the definition, pair by pair."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compress.pareto import front_mask

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    mask = front_mask(np.asarray(points, float))
    for point, on_front in zip(points, mask, strict=True):
        dominated = any(
            other[0] <= point[0] and other[1] <= point[1] and other != point for other in points
        )
        assert on_front != dominated
