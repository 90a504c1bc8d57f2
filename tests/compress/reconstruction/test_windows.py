"""Positions that are drawn in windows: inside the grid, each as often as any other."""

from __future__ import annotations

import numpy as np
import pytest

from compress.reconstruction.sampling import Batches, Sampler, compute_window


def sampler(count: int) -> Sampler:
    batches = Batches((np.zeros((count, 1)),), ((0, count),), (False,), count)
    return Sampler(lambda *_: None, batches, seed=0)


@pytest.mark.parametrize(
    ("grid", "size", "window"),
    [((28, 28), 9, (3, 3)), ((7,), 9, (7,)), ((2, 9), 9, (2, 3)), ((6, 6, 6), 8, (2, 2, 2))],
)
def test_windows_are_as_large_as_the_grid_allows(
    grid: tuple[int, ...], size: int, window: tuple[int, ...]
) -> None:
    assert compute_window(grid, size) == window


@pytest.mark.parametrize("grid", [(8, 6), (12,), (4, 5, 3)])
def test_positions_are_drawn_alike_and_lie_together(grid: tuple[int, ...]) -> None:
    count, wanted, positions = 3000, 30_000, int(np.prod(grid))
    examples, drawn = sampler(count).sample_windows(grid, count, wanted, 9)
    assert 0 <= drawn.min() <= drawn.max() < positions
    assert len(np.unique(examples * positions + drawn)) == len(drawn)
    assert set(examples) == set(range(count))
    # about as many as were asked for, the border as often as the middle
    often = np.bincount(drawn, minlength=positions)
    assert 0.5 * wanted < len(drawn) < 2 * wanted
    assert often.min() > 0.85 * often.mean()
    assert often.max() < 1.15 * often.mean()


def test_many_windows_of_an_example_are_no_position_twice() -> None:
    examples, drawn = sampler(4).sample_windows((3, 3), 4, 400, 9)
    assert len(drawn) == len(np.unique(examples * 9 + drawn)) == 36
