"""Selection against exhaustive search and arithmetic by hand; NumPy alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compress.prune.channels.selection.allowed_counts import AllowedCounts, compute_rounding_steps
from compress.prune.channels.selection.rank_selection import allocate_by_rank, allocate_by_share


def allowed(
    removable: list[int],
    step: list[int] | None = None,
    fixed: list[int] | None = None,
    floor: list[int] | None = None,
) -> AllowedCounts:
    count = len(removable)
    return AllowedCounts(
        np.array(removable),
        np.array(fixed or [0] * count),
        np.array(step or [1] * count),
        np.array(floor or [1] * count),
    )


def test_steps_by_width() -> None:
    channels = np.array([4, 6, 8, 12, 24, 32, 64, 2048])
    ones, never = np.ones(8, np.int64), np.zeros(8, bool)
    assert compute_rounding_steps(channels, ones, never, 0).tolist() == [4, 4, 4, 8, 8, 16, 16, 16]
    assert compute_rounding_steps(channels, ones, never, 8).tolist() == [4, 4, 4, 8, 8, 8, 8, 8]
    assert compute_rounding_steps(channels, ones, never, 1).tolist() == [1] * 8


def test_steps_count_channels_not_units() -> None:
    # 16 units of 8 channels: every number of units is a multiple of 8 channels
    assert compute_rounding_steps(
        np.array([128]), np.array([8]), np.array([False]), 0
    ).tolist() == [2]
    assert compute_rounding_steps(np.array([12]), np.array([1]), np.array([True]), 0).tolist() == [
        1
    ]


def test_nearest_allowed_numbers() -> None:
    space = allowed([30, 64], step=[8, 16], floor=[3, 7])
    assert space.lowest.tolist() == [8, 16]
    assert space.round_totals(np.array([5.0, 23.9])).tolist() == [8, 16]
    assert space.round_totals(np.array([12.0, 24.0])).tolist() == [16, 32]
    assert space.round_totals(np.array([28.0, 64.0])).tolist() == [30, 64]  # everything is allowed
    assert space.step_up(np.array([24, 64])).tolist() == [30, 64]
    assert space.step_down(np.array([30, 16])).tolist() == [24, 16]


def test_frozen_units_count_towards_the_totals() -> None:
    space = allowed([6], step=[4], fixed=[2], floor=[1])
    assert space.total.tolist() == [8]
    assert space.lowest.tolist() == [4]


def test_share_of_every_group() -> None:
    assert allocate_by_share(allowed([10, 20]), 0.5).tolist() == [5, 10]


def test_one_threshold_removes_the_lowest_scores() -> None:
    scores = [np.array([0.1, 0.9, 0.8]), np.array([0.2, 0.3, 0.95])]
    weight = np.array([1.0, 1.0])
    choice = allocate_by_rank(scores, allowed([3, 3]), lambda kept, _: kept @ weight, 3.0)
    assert choice.totals.tolist() == [2, 1]  # 0.1, 0.2, 0.3 leave
    assert choice.is_on_target


@pytest.mark.parametrize("seed", range(20))
def test_comes_as_near_as_exhaustive_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 9, size=4)
    first, second = rng.integers(1, 50, size=(2, 4))
    scores = [rng.random(size) for size in sizes]

    def cost(kept: np.ndarray) -> np.ndarray:
        # products of neighbours, as in a chain of convolutions
        return kept @ first + (kept[..., :-1] * kept[..., 1:]) @ second[:3]

    space = allowed(sizes.tolist())
    target = float(cost(sizes)) * rng.uniform(0.3, 0.8)
    choice = allocate_by_rank(scores, space, lambda kept, _: cost(kept), target)
    best = min(
        abs(float(cost(np.array(kept))) - target) / target
        for kept in itertools.product(*[range(1, size + 1) for size in sizes])
    )
    assert abs(choice.error) <= max(0.02, 2 * best)
    assert choice.error == pytest.approx((float(cost(choice.totals)) - target) / target)


def test_uniform_thins_all_groups_alike() -> None:
    scores = [np.full(100, 0.01), np.full(100, 5.0)]
    weight = np.array([1.0, 1.0])
    choice = allocate_by_rank(
        scores, allowed([100, 100]), lambda kept, _: kept @ weight, 100.0, uniform=True
    )
    assert choice.totals.tolist() == [50, 50]


def test_floors_hold() -> None:
    scores = [np.zeros(10), np.ones(10)]
    choice = allocate_by_rank(
        scores, allowed([10, 10], floor=[4, 1]), lambda kept, _: kept.sum(-1).astype(float), 9.0
    )
    assert choice.totals[0] == 4
    assert choice.totals.sum() == 9
