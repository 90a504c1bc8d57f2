"""Forecasts against arithmetic done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.scheduler.forecast import (
    FileResult,
    Forecaster,
    FrontScale,
    RidgeModel,
    compute_log_ratio,
    compute_rank_correlation,
    estimate_mean,
)


def test_a_regression_begins_with_its_prior_and_ends_at_least_squares() -> None:
    model = RidgeModel((0.5, 1.0), (2.0, 2.0))
    assert model.predict((1.0, 3.0)) == 3.5
    # one observation of a constant: (2 x 0.5 + 1 x 2) / 3
    single = RidgeModel((0.5,), (2.0,))
    single.observe((1.0,), 2.0)
    assert single.predict((1.0,)) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 2))
    for row in rows:
        model.observe(tuple(row), float(row @ (2.0, -1.0)))
    np.testing.assert_allclose(model.fit(), (2.0, -1.0), atol=2e-3)
    # nothing is left but the prior spread, which counts as three observations
    assert model.estimate_spread(0.3) == pytest.approx(math.sqrt(3 * 0.09 / 4003), rel=0.02)


def test_the_box_of_the_hypervolume() -> None:
    # best error 0.1, guessing 0.9: the corner is at 0.1 + 0.8 / 4 = 0.3, and at twice 8 ms
    scale = FrontScale.from_points([(0.1, 8.0), (0.2, 4.0)], 0.1)
    assert scale.largest_error == pytest.approx(0.3)
    assert scale.largest_cost == 16
    # one file of 0.15 at 4 ms: half of the height, log(4) wide
    assert scale.measure([(0.15, 4.0)]) == pytest.approx(0.5 * math.log(4))
    assert scale.measure([(0.31, 4.0)]) == 0
    assert scale.measure([]) == 0
    # another of 0.15 at 2 ms adds a strip of log(2)
    gain = scale.measure_gain([(0.15, 4.0)], [(0.15, 2.0)])
    assert gain == pytest.approx(0.5 * math.log(2))
    # a file that is expected to be no better gains only if its error is smaller than expected
    assert scale.measure_gain([(0.15, 4.0)], [(0.15, 4.0)]) == pytest.approx(0)
    better = 0.15 * math.exp(-0.1 * math.sqrt(3))
    by_hand = (0.15 - better) / 0.3 * math.log(4) / 6
    found = scale.measure_gain([(0.15, 4.0)], [(0.15, 4.0)], 0.1)
    assert found == pytest.approx(by_hand)


def test_costs_are_an_overhead_and_a_share_of_the_macs() -> None:
    forecaster = Forecaster(("float32", "int8"))
    assert forecaster.predict_cost(5e6) == 1
    for macs in (1e6, 2e6, 8e6, 3e6, 5e6):
        cost = 0.02 + macs * 1e-8
        files = [FileResult("float32", 0.9, cost), FileResult("int8", 0.88, 0.5 * cost)]
        forecaster.observe_files(files, macs)
    assert forecaster.predict_cost(4e6) == pytest.approx(0.06, rel=0.05)
    # int8: half of the time, 1.2 times the error, both less the weight of a prior in six
    (_, float_cost), (error, cost) = forecaster.predict_files(0.1, 0.06)
    assert float_cost == 0.06
    assert cost == pytest.approx(0.06 * 0.5 ** (5 / 6))
    assert error == pytest.approx(0.1 * math.exp((5 * math.log(1.2) + 0.05) / 6))
    assert Forecaster(("float32",), counts_macs=True).predict_cost(5e6) == 5e6


def test_costs_of_pruned_files_are_learned_from_those_of_the_same_model() -> None:
    originals = [FileResult("float32", 0.9, 0.1), FileResult("int8", 0.88, 0.05)]
    forecaster = Forecaster(("float32", "int8"))
    # before any is known 0.3 of the cost stays: 0.3 + 0.7 x 0.5
    (error, cost), (int8_error, int8_cost) = forecaster.predict_pruned_files(
        "a", originals, 0.2, 0.5
    )
    assert (error, int8_error) == pytest.approx((0.2, 0.2 * math.exp(0.05)))
    assert (cost, int8_cost) == pytest.approx((0.065, 0.0325))
    # half of the MACs leave 0.6 of the float file's cost, which is an overhead of 0.2
    for _ in range(40):
        forecaster.observe_pruning("a", originals, [FileResult("float32", 0.8, 0.06)], 0.5)
    (_, cost), (_, int8_cost) = forecaster.predict_pruned_files("a", originals, 0.2, 0.25)
    assert cost == pytest.approx(0.1 * (0.25 + 0.2 * 0.75), rel=0.01)
    assert int8_cost == pytest.approx(cost / 2)
    # another model knows nothing of it
    assert forecaster.predict_pruned_files("b", originals, 0.2, 0.5)[0][1] == pytest.approx(0.065)
    # MACs are what they are
    exact = Forecaster(("float32",), counts_macs=True)
    assert exact.predict_pruned_files("a", [FileResult("float32", 0.9, 4e6)], 0.2, 0.5) == [
        (0.2, 2e6)
    ]


def test_fine_tuning_is_learned_from_pairs() -> None:
    forecaster = Forecaster(("float32",))
    error, spread = forecaster.predict_tuned(0.9, 1.0, 0.5)
    # -0.05 + 0.08 x 1 + 0.1 x 0.5
    assert error == pytest.approx(0.1 * math.exp(0.08))
    assert spread == pytest.approx(0.06)
    # a model that is not pruned yet: reconstructed its error is 0.7 per halving larger, in logs
    error, wider = forecaster.predict_tuned(0.9, 2.0, None)
    assert error == pytest.approx(0.1 * math.exp(-0.05 + 0.16 + 0.14))
    assert wider == pytest.approx(math.hypot(0.06, 0.1 * 0.15 * 2))
    for halvings in (0.5, 1.0, 1.5, 2.0) * 20:
        forecaster.repaired.observe((halvings,), 0.3 * halvings)
        forecaster.tuned.observe((1.0, halvings, 0.3 * halvings), 0.2 * halvings - 0.1)
    error, spread = forecaster.predict_tuned(0.9, 1.0, None)
    assert error == pytest.approx(0.1 * math.exp(0.1), rel=0.01)
    assert spread < 0.04


def test_known_costs_of_a_size_are_not_forecast() -> None:
    forecaster = Forecaster(("float32", "int8"))
    originals = FileResult("float32", 0.9, 0.1), FileResult("int8", 0.9, 0.04)
    slow = FileResult("int8", 0.3, 0.039)
    (_, float_cost), (_, int8_cost) = forecaster.predict_pruned_files(
        "m", originals, 0.2, 0.5, [slow]
    )
    # half of the MACs, and 0.3 of the rest as overhead
    assert float_cost == pytest.approx(0.1 * (0.5 + 0.3 * 0.5))
    assert int8_cost == 0.039


def test_fine_tuning_is_not_forecast_to_do_harm() -> None:
    """Small models that lost much say little about large ones that lost nothing when pruned."""
    forecaster = Forecaster(("float32",))
    for _ in range(10):
        forecaster.tuned.observe((1.0, 2.0, 1.0), 1.5)
    error, _ = forecaster.predict_tuned(0.9, 2.0, 0.2)
    assert error == pytest.approx(0.1 * math.exp(0.2))
    # what is not pruned yet has no such limit
    assert forecaster.predict_tuned(0.9, 2.0, None)[0] > 0.1 * math.exp(1)


def test_ratios_means_and_ranks() -> None:
    assert compute_log_ratio(0.9, 0.9) == 0
    assert compute_log_ratio(1.0, 1.0) == 0
    assert estimate_mean([], 3.0) == 3
    assert estimate_mean([100.0, *[1.0] * 8], 1.0) == 1
    assert compute_rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(0.8)
    assert math.isnan(compute_rank_correlation([1, 2], [1, 2]))
