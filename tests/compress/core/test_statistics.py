"""Intervals of differences: against formulas by hand, SciPy, and how often equal ones differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compress.core.statistics import (
    JACKKNIFE_GROUPS,
    compare_examples,
    compare_shares,
    compute_jackknife_values,
    compute_mean_interval,
    correct_level,
)


def test_right_and_wrong_by_bonett_and_price() -> None:
    # 12 lost, 5 won of 200: (5 - 12) / 202, variance (17 + 2) / 202 - that squared
    old = np.ones(200)
    old[:5] = 0
    new = np.ones(200)
    new[5:17] = 0
    found = compare_examples(new, old)
    middle = -7 / 202
    half = stats.norm.ppf(0.975) * np.sqrt((19 / 202 - middle**2) / 202)
    assert found.estimate == pytest.approx(-7 / 200)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert found.is_tie


def test_no_difference_on_few_examples_is_no_certainty() -> None:
    found = compare_examples(np.ones(100), np.ones(100))
    # one more example on either side: +- 1.96 sqrt(2 / 102 / 102)
    assert found.high == pytest.approx(1.959964 * np.sqrt(2) / 102)
    assert found.low == -found.high


def test_other_values_by_the_paired_t_test() -> None:
    random = np.random.default_rng(0)
    old = random.normal(2.0, 1.0, 40)
    new = old + random.normal(0.1, 0.2, 40)
    expected = stats.ttest_rel(new, old).confidence_interval(0.95)
    found = compare_examples(new, old)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    corrected = stats.ttest_rel(new, old).confidence_interval(1 - 0.05 / 7)
    found = compare_examples(new, old, comparisons=7)
    assert (found.low, found.high) == pytest.approx((corrected.low, corrected.high))


def test_values_of_other_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same examples"):
        compare_examples(np.ones(3), np.ones(4))


def test_shares_of_two_samples_by_agresti_and_caffo() -> None:
    found = compare_shares(0.9, 50, 0.8, 40)
    first, second = 46 / 52, 33 / 42
    half = 1.959964 * np.sqrt(first * (1 - first) / 52 + second * (1 - second) / 42)
    assert (found.low, found.high) == pytest.approx((first - second - half, first - second + half))
    assert found.estimate == pytest.approx(0.1)


def test_levels_for_several_comparisons() -> None:
    assert correct_level(1) == correct_level(0) == 0.95
    assert correct_level(10) == pytest.approx(0.995)


def test_the_jackknife_of_a_mean_is_the_values_themselves() -> None:
    values = np.random.default_rng(1).normal(size=50)
    found = compute_jackknife_values(50, lambda index: float(values[index].mean()))
    assert sorted(found) == pytest.approx(sorted(values))


def test_the_jackknife_of_many_examples_has_the_error_of_the_mean() -> None:
    values = np.random.default_rng(2).exponential(size=5000)
    found = compute_jackknife_values(5000, lambda index: float(values[index].mean()))
    assert len(found) == JACKKNIFE_GROUPS
    assert found.mean() == pytest.approx(values.mean())
    error = values.std(ddof=1) / np.sqrt(5000)
    # the error of an error that 200 groups tell is 5 %
    assert found.std(ddof=1) / np.sqrt(JACKKNIFE_GROUPS) == pytest.approx(error, rel=0.2)


def test_intervals_of_a_metric() -> None:
    right = np.r_[np.ones(350), np.zeros(10)]
    expected = stats.binomtest(350, 360).proportion_ci(0.95, method="wilson")
    assert compute_mean_interval(right) == pytest.approx((expected.low, expected.high))
    values = np.random.default_rng(3).normal(size=30)
    known = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert compute_mean_interval(values) == pytest.approx((known.low, known.high))
    assert compute_mean_interval(values[:9]) is None


@pytest.mark.parametrize("count", [270, 1000])
def test_equal_models_differ_in_at_most_seven_of_a_hundred_draws(count: int) -> None:
    random, false = np.random.default_rng(count), 0
    for _ in range(1000):
        chance = random.random(count)  # of being right, the same for both
        new, old = (random.random(count) < 0.8 + 0.4 * (chance - 0.5) for _ in range(2))
        false += not compare_examples(new, old).is_tie
    assert false <= 70


def test_the_best_of_fifty_equal_ones_seldom_differs() -> None:
    random, false, uncorrected = np.random.default_rng(5), 0, 0
    for _ in range(200):
        chance = np.clip(random.normal(0.9, 0.1, 1000), 0, 1)
        recipe, *others = random.random((51, 1000)) < chance
        best = max(others, key=lambda values: values.mean())
        false += compare_examples(best, recipe, comparisons=50).low > 0
        share = recipe.mean()
        uncorrected += best.mean() > share + np.sqrt(share * (1 - share) / 1000)
    assert false <= 14
    assert uncorrected >= 80  # one standard error of a share lets so many through
