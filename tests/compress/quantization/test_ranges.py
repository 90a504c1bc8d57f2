"""Ranges against arithmetic done by hand, and calibration against NumPy."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.core.errors import InputError
from compress.quantization.fake_quantization import build_fake_quantized
from compress.quantization.ranges import (
    MOMENTUM,
    FakeQuant,
    QuantizationState,
    _RangeStatistics,
    calibrate,
    find_least_error,
)


def ranged(low: float, high: float, **settings: Any) -> FakeQuant:
    layer = FakeQuant(QuantizationState(), **settings)
    layer.assign_range(low, high)
    return layer


def test_values_are_rounded_to_256_steps() -> None:
    # -1 to 1.55: 255 steps of 0.01, 0 is the hundredth
    layer = ranged(-1.0, 1.55)
    x = np.array([[-2.0, -1.0, -0.004, 0.004, 0.006, 0.1234, 1.55, 9.0]], np.float32)
    found = np.asarray(layer(x))
    np.testing.assert_allclose(found, [[-1, -1, 0, 0, 0.01, 0.12, 1.55, 1.55]], atol=1e-6)


def test_zero_is_always_a_step() -> None:
    layer = ranged(0.3, 2.0)
    assert float(layer.compute_bounds()[0]) == 0.0
    layer = ranged(-0.013, 1.0)
    assert float(np.asarray(layer(np.zeros((1, 1), np.float32)))[0, 0]) == 0.0


def test_tied_ranges_are_one() -> None:
    one, two, three = ranged(-1, 1), ranged(-0.5, 4), ranged(-3, 0)
    one.tie(two)
    three.tie(one)
    for layer in (one, two, three):
        assert [float(bound) for bound in layer.compute_bounds()] == [-3.0, 4.0]


def test_a_range_ends_at_its_cap() -> None:
    layer = ranged(0, 8, cap=1.5)
    assert float(np.asarray(layer(np.full((1, 1), 7.0, np.float32)))[0, 0]) == 1.5
    layer.state.quantizes = False
    assert float(np.asarray(layer(np.full((1, 1), 7.0, np.float32)))[0, 0]) == 1.5


def test_ranges_move_in_training_alone() -> None:
    layer = ranged(-1, 1)
    x = np.array([[-3.0, 2.0]], np.float32)
    layer(x, training=False)
    assert [float(bound) for bound in layer.compute_bounds()] == [-1.0, 1.0]
    layer(x, training=True)
    low, high = (float(bound) for bound in layer.compute_bounds())
    assert low == pytest.approx(-MOMENTUM - 3 * (1 - MOMENTUM))
    assert high == pytest.approx(MOMENTUM + 2 * (1 - MOMENTUM))


def test_ties_go_away_from_zero_where_pooling_rounds_so() -> None:
    # steps of 1, 0 is the integer -28: 2.5 is -25.5, and 100.5 is 72.5
    layer = ranged(-100, 155, away=True)
    x = np.array([[2.5, 100.5, -10.5]], np.float32)
    np.testing.assert_allclose(np.asarray(layer(x)), [[2.0, 101.0, -11.0]])
    np.testing.assert_allclose(np.asarray(ranged(-100, 155)(x)), [[3.0, 101.0, -10.0]])


def seen_of(values: Any) -> _RangeStatistics:
    seen = _RangeStatistics()
    seen.update_extremes(values)
    seen.update_histogram(values)
    return seen


def test_the_least_error_is_least() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=1_000_000), [14.0, -11.0]])

    def error(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero = np.round(-low / scale)
        codes = np.clip(np.round(values / scale) + zero, 0, 255)
        return float(np.mean(((codes - zero) * scale - values) ** 2))

    seen = seen_of(values)
    least = error(*find_least_error(seen))
    assert least < 0.6 * error(seen.low, seen.high)
    best = min(
        error(-low, high) for low in np.linspace(2, 11, 12) for high in np.linspace(2, 14, 12)
    )
    assert least <= 1.1 * best


def test_zeros_cost_nothing() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=10_000))
    many = np.concatenate([values, np.zeros(90_000)])
    assert find_least_error(seen_of(values)) == find_least_error(seen_of(many))


def test_a_tensor_of_zeros_has_a_range() -> None:
    assert find_least_error(seen_of(np.zeros(100))) == (0.0, 0.0)


def test_extremes_of_what_passes() -> None:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Rescaling(2.0, 1.0)(inputs))
    twin = build_fake_quantized(model)
    calibrate(twin, [np.array([[-1.0, 0.5], [3.0, 0.0]], np.float32)])
    bounds = [[float(bound) for bound in layer.compute_bounds()] for layer in twin.ranges]
    # few values that are far apart: nothing is cut off
    assert bounds == [[-1.0, 3.0], [-1.0, 7.0]]


def test_nan_is_named_where_it_arises() -> None:
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="broken")(inputs))
    model.layers[1].kernel.assign(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN or infinity at 'broken'"):
        calibrate(build_fake_quantized(model), [np.ones((4, 2), np.float32)])
