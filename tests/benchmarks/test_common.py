"""Comparisons of means over seeds: against SciPy, and how often equal ones differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks._common import compare_means


def test_seeds_by_welchs_t_test() -> None:
    new, old = [0.931, 0.935, 0.930], [0.925, 0.9261, 0.9255, 0.927]
    expected = stats.ttest_ind(new, old, equal_var=False).confidence_interval(0.95)
    parts = [(np.mean(v), stats.sem(v), len(v)) for v in (new, old)]
    found = compare_means(*parts[0], *parts[1])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # against a number: the t test of one sample
    one = stats.ttest_1samp(new, 0.0).confidence_interval(0.95)
    found = compare_means(*parts[0], 0.0, 0.0, 0)
    assert (found.low, found.high) == pytest.approx((one.low, one.high))


def test_equal_methods_differ_in_at_most_seven_of_a_hundred_draws_of_three_seeds() -> None:
    random, false = np.random.default_rng(0), 0
    for _ in range(1000):
        parts = [(v.mean(), stats.sem(v), 3) for v in random.normal(size=(2, 3))]
        false += not compare_means(*parts[0], *parts[1]).is_tie
    assert false <= 70
    # the rule of before, two standard errors: 11 to 18 %
    assert 2 * stats.t.sf(2, 4) > 0.11
