"""Times between measured widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.measure.latency_table.prediction import (
    build_interpolation_matrix,
    complete_table,
    compute_alignment,
    find_intervals,
    interpolate_table,
    select_channel_counts,
    select_evenly,
)


def test_alignment_of_widths() -> None:
    assert [compute_alignment(width) for width in (1, 6, 12, 24, 48, 96, 64)] == [
        1,
        2,
        4,
        8,
        16,
        32,
        32,
    ]


@pytest.mark.parametrize("widths", [[4, 8, 12, 16], [*range(4, 129, 4)], [*range(8, 400, 8), 401]])
def test_staircases_are_interpolated_exactly(widths: list[int]) -> None:
    """Time that grows with tiles of 32, measured at some widths, is right at all of them."""
    picked = select_channel_counts(widths)
    spread = build_interpolation_matrix(widths, picked)
    times = 3.0 + 0.5 * -(-np.array(widths) // 32)
    linear = 3.0 + 0.5 * np.array(widths)
    assert np.allclose(spread.sum(1), 1.0)
    assert (spread >= -1e-12).all()  # between measured ones, never beyond
    assert np.allclose(spread @ linear[picked], linear)
    aligned = np.array([compute_alignment(width) == 32 for width in widths])
    assert np.allclose((spread @ times[picked])[aligned], times[aligned])
    if len(widths) > 16:
        assert len(picked) < len(widths) / 2


def test_a_table_is_completed_from_one_line_and_the_ends_of_the_others() -> None:
    """Tiles of outputs, each a loop over the inputs: any time of this form is exact."""
    tiles, inputs = np.array([1.0, 1.0, 2.0, 5.0, 5.0, 9.0]), np.array([4.0, 20.0, 64.0])
    truth = tiles * (0.3 + 0.1 * inputs[:, None]) + 0.02 * inputs[:, None] ** 2
    table = truth.copy()
    table[:-1, 1:-1] = np.nan
    assert complete_table(table, 1) == pytest.approx(truth)
    assert complete_table(table.T, 0) == pytest.approx(truth.T)
    # noise of a line that is as good as flat is not magnified: 0.05 / 0.001 would add 50
    noisy = np.array([[1.0, np.nan, 2.0], [3.0, 3.05, 3.001]])
    assert complete_table(noisy, 1)[0] == pytest.approx([1.0, 2.5, 2.0])
    flat = np.array([[1.0, np.nan, 2.0], [3.0, 3.0, 3.0]])  # nothing is known of the shape
    assert complete_table(flat, 1) == pytest.approx(np.array([[1.0, 1.5, 2.0], [3.0, 3.0, 3.0]]))


def test_few_are_the_ends_and_the_middle() -> None:
    assert select_evenly(1) == [0]
    assert select_evenly(2) == [0, 1]
    assert select_evenly(9) == [0, 4, 8]


def test_multilinear_is_exact_on_a_bilinear_truth() -> None:
    x, y = np.array([2.0, 3.0, 7.0]), np.array([1.0, 5.0])

    def truth(a: Any, b: Any) -> Any:
        return 1.0 + 2.0 * a + 3.0 * b + 0.5 * a * b

    rng = np.random.default_rng(0)
    a, b = rng.uniform(2, 7, (4, 5)), rng.uniform(1, 5, (4, 5))
    found = interpolate_table(truth(x[:, None], y), [find_intervals(a, x), find_intervals(b, y)])
    assert np.allclose(found, truth(a, b))
    assert interpolate_table(np.array(3.0), []) == 3.0
    assert (
        interpolate_table(np.array([4.0]), [find_intervals(np.array([2.0]), np.array([2.0]))])
        == 4.0
    )
