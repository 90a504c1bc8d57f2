"""Fronts, ranks, spread and hypervolume against definitions, closed forms and Optuna."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.study._multi_objective import _fast_non_domination_rank

from compress.core.pareto import (
    ParetoFront,
    compute_crowding_distance,
    compute_front_mask,
    measure_hypervolume,
    rank_nondominated,
)

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


def grids(most: int) -> st.SearchStrategy[np.ndarray]:
    """Small integer points of 1 to 4 objectives: many ties, equal rows and dominations."""
    return st.integers(1, 4).flatmap(
        lambda objectives: st.lists(
            st.tuples(*[st.integers(0, 4)] * objectives), min_size=1, max_size=most
        ).map(lambda rows: np.array(rows, float))
    )


@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    mask = compute_front_mask(np.asarray(points, float))
    for point, on_front in zip(points, mask, strict=True):
        dominated = any(
            other[0] <= point[0] and other[1] <= point[1] and other != point for other in points
        )
        assert on_front != dominated


@given(grids(30))
def test_ranks_equal_optunas(losses: np.ndarray) -> None:
    ranks = rank_nondominated(losses)
    np.testing.assert_array_equal(ranks, _fast_non_domination_rank(losses))
    np.testing.assert_array_equal(ranks == 0, compute_front_mask(losses))


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_front_by_its_definition(objectives: int) -> None:
    """Row against row; many are equal, some are infinite."""
    rng = np.random.default_rng(objectives)
    losses = rng.integers(0, 4, (80, objectives)).astype(float)
    losses[rng.random(losses.shape) < 0.1] = np.inf

    def dominated(row: np.ndarray) -> bool:
        return any((other <= row).all() and (other < row).any() for other in losses)

    np.testing.assert_array_equal(
        compute_front_mask(losses), [not dominated(row) for row in losses]
    )
    assert compute_front_mask(losses[:0]).shape == (0,)
    assert compute_front_mask(np.full((2, objectives), np.inf)).all()


def test_ranks_of_layers_and_of_nothing() -> None:
    layer = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    losses = np.concatenate([layer + 2, layer, layer + 1, layer])
    np.testing.assert_array_equal(rank_nondominated(losses), np.repeat([2, 0, 1, 0], 3))
    assert rank_nondominated(np.zeros((0, 2))).shape == (0,)


def test_crowding_by_hand() -> None:
    losses = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    np.testing.assert_allclose(
        compute_crowding_distance(losses), [np.inf, 4 / 10 + 5 / 10, 9 / 10 + 6 / 10, np.inf]
    )


def test_crowding_without_spread_adds_nothing() -> None:
    losses = np.array([[0.0, 7.0], [1.0, 7.0], [4.0, 7.0]])
    np.testing.assert_allclose(compute_crowding_distance(losses), [np.inf, 1.0, np.inf])
    np.testing.assert_array_equal(compute_crowding_distance(np.ones((3, 2))), np.zeros(3))
    assert compute_crowding_distance(np.zeros((0, 2))).shape == (0,)


def test_crowding_does_not_depend_on_order_or_scale() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(12, 3))
    order = rng.permutation(12)
    expected = compute_crowding_distance(losses)
    np.testing.assert_allclose(compute_crowding_distance(losses[order]), expected[order])
    np.testing.assert_allclose(compute_crowding_distance(losses * [1e6, 1, 1e-6] + 5), expected)


def by_cells(losses: np.ndarray, size: int) -> float:
    """Counts the unit cells of [0, size)^m that integer points dominate."""
    corners = itertools.product(range(size), repeat=losses.shape[1])
    return float(sum((losses <= np.array(corner)).all(axis=1).any() for corner in corners))


@settings(deadline=None)
@given(grids(10))
def test_hypervolume_counts_cells(losses: np.ndarray) -> None:
    # points at 4 lie on the reference and add nothing
    assert measure_hypervolume(losses, [4.0] * losses.shape[1]) == pytest.approx(
        by_cells(losses, 4)
    )


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
def test_hypervolume_equals_optunas(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for count in (1, 2, 7, 25):
        losses = rng.uniform(size=(count, objectives))
        reference = np.full(objectives, 1.0)
        expected = compute_hypervolume(losses, reference)
        assert measure_hypervolume(losses, reference) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_hypervolume_of_boxes_by_inclusion_and_exclusion(objectives: int) -> None:
    losses = np.random.default_rng(9).uniform(-2, 1.2, size=(7, objectives))
    reference = np.ones(objectives)
    expected = 0.0
    for size in range(1, len(losses) + 1):
        for subset in itertools.combinations(losses, size):
            sides = np.maximum(reference - np.max(subset, axis=0), 0.0)
            expected += (-1) ** (size + 1) * sides.prod()
    assert measure_hypervolume(losses, reference) == pytest.approx(expected)


def test_hypervolume_of_a_staircase() -> None:
    x = np.arange(10.0)
    losses = np.stack([x, 9 - x], axis=1)
    assert measure_hypervolume(losses, (10, 10)) == pytest.approx(55.0)
    assert measure_hypervolume(losses[::-1], (10, 10)) == pytest.approx(55.0)


def test_what_does_not_dominate_the_reference_counts_nothing() -> None:
    losses = np.array([[0.5, 0.5], [0.0, 1.0], [-3.0, 2.0], [2.0, -3.0]])
    assert measure_hypervolume(losses, (1.0, 1.0)) == pytest.approx(0.25)
    assert measure_hypervolume(losses[1:], (1.0, 1.0)) == 0.0
    assert measure_hypervolume(np.zeros((0, 3)), (1.0, 1.0, 1.0)) == 0.0


def test_hypervolume_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"Received: \(2, 2\) and \(3,\)"):
        measure_hypervolume(np.zeros((2, 2)), (1.0, 1.0, 1.0))


@settings(deadline=None)
@given(grids(25))
def test_a_frontier_row_by_row_equals_all_at_once(losses: np.ndarray) -> None:
    reference = [3.5] * losses.shape[1]
    frontier, before = ParetoFront(reference), 0.0
    for count, row in enumerate(losses, start=1):
        frontier.add(row)
        assert frontier.volume == pytest.approx(
            measure_hypervolume(losses[:count], reference), rel=1e-12
        )
        assert frontier.volume >= before
        before = frontier.volume
    inside = losses[(losses < 3.5).all(axis=1)]
    on_front = np.unique(inside[compute_front_mask(inside)], axis=0)
    np.testing.assert_array_equal(np.unique(frontier.rows, axis=0), on_front)
    assert len(frontier.rows) == len(on_front)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_a_frontier_of_many_rows(objectives: int) -> None:
    losses = np.random.default_rng(objectives).uniform(size=(300, objectives))
    frontier = ParetoFront(np.ones(objectives))
    for row in losses:
        frontier.add(row)
    assert frontier.volume == pytest.approx(
        compute_hypervolume(losses, np.ones(objectives)), rel=1e-10
    )
