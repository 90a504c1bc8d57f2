"""A few examples that stand for all: every class, and every stretch of what has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.data import Split, sample_stratified


def labelled(y: Any) -> Split:
    count = len(next(iter(y.values()))) if isinstance(y, dict) else len(y)
    return Split(np.zeros((count, 1), np.float32), y)


def test_classes_have_their_shares_of_data_sorted_by_class() -> None:
    y = np.repeat(np.arange(10), 100)
    drawn = sample_stratified(labelled(y), 200)
    assert np.bincount(y[drawn]).tolist() == [20] * 10
    assert (np.diff(drawn) > 0).all()
    # of 12 examples 7.2, 3.6 and 1.2: whole shares first, the last one to the largest remainder
    y = np.repeat([0, 1, 2], [60, 30, 10])
    assert np.bincount(y[sample_stratified(labelled(y), 12)]).tolist() == [7, 4, 1]


def test_a_rare_class_has_one_example() -> None:
    y = np.repeat([0, 1, 2], [1, 990, 9])
    # 0.01, 9.9 and 0.09 of ten
    assert np.bincount(y[sample_stratified(labelled(y), 10)]).tolist() == [1, 8, 1]


def test_all_examples_where_there_are_no_more() -> None:
    for count in (5, 6, 100):
        assert sample_stratified(labelled(np.arange(5) % 2), count).tolist() == [0, 1, 2, 3, 4]


def test_more_classes_than_examples_are_covered_evenly() -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 4))
    drawn = y[sample_stratified(labelled(y), 10)]
    # 200 sorted examples in ten stretches of twenty: five classes each
    assert sorted(label // 5 for label in drawn) == list(range(10))


@pytest.mark.parametrize(
    "y",
    [
        np.linspace(0, 1, 400, dtype=np.float32)[:, None],  # numbers, in rising order
        np.zeros((400, 0), np.float32),  # no labels
        np.zeros((400, 4, 4), np.int32),  # classes at positions
        {"class": np.repeat([0, 1], 200), "box": np.zeros((400, 2), np.float32)},
    ],
)
def test_without_classes_each_stretch_has_one(y: Any) -> None:
    drawn = sample_stratified(labelled(y), 40, seed=3)
    assert (drawn // 10).tolist() == list(range(40))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 100), st.integers(0, 9)
)
def test_shares_are_proportional(sizes: list[int], count: int, seed: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    drawn = sample_stratified(labelled(y), count, seed)
    assert len(drawn) == len(set(drawn.tolist())) == min(count, len(y))
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, sample_stratified(labelled(y), count, seed))
    if len(sizes) <= count:
        counts: npt.NDArray[np.int64] = np.bincount(y[drawn], minlength=len(sizes))
        assert (counts >= 1).all()
        # beyond its share a class has less than one more
        exact = np.array(sizes) * min(1.0, count / len(y))
        assert (counts < np.maximum(exact, 1) + 1).all()


def test_the_seed_says_which() -> None:
    y = labelled(np.arange(1000) % 4)
    assert sample_stratified(y, 100, 0).tolist() != sample_stratified(y, 100, 1).tolist()
