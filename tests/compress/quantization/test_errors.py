"""What rounding costs behind each layer, against arithmetic done by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from compress.quantization.fake_quantization import build_fake_quantized, measure_layer_errors
from compress.quantization.ranges import calibrate


def test_own_and_total_errors() -> None:
    inputs = keras.Input((1,), name="x")
    first = keras.layers.Rescaling(1.0, name="first")
    second = keras.layers.Dense(1, name="second")
    model = keras.Model(inputs, second(first(inputs)))
    second.kernel.assign([[1.0]])
    x = np.linspace(-1.0, 1.55, 64, dtype=np.float32)[:, None]
    twin = build_fake_quantized(model)
    calibrate(twin, [x])
    rounded = np.round(x / 0.01) * 0.01  # steps of 0.01: -1 to 1.55
    lost = float(np.square(rounded - x).sum() / np.square(x - x.mean()).sum())
    found = {error.layer: error for error in measure_layer_errors(twin, [x])}
    assert list(found) == ["x", "first", "second"]
    # on the same grid each of them rounds floats once, and nothing is added on the way
    for error in found.values():
        assert error.own == pytest.approx(lost, rel=0.05)
        assert error.total == pytest.approx(lost, rel=0.05)


def test_errors_add_up_on_the_way() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = inputs
    for place in range(4):
        x = keras.layers.Dense(16, activation="relu", name=f"d{place}")(x)
    twin = build_fake_quantized(keras.Model(inputs, x))
    given = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    calibrate(twin, [given])
    found = measure_layer_errors(twin, [given])
    assert all(error.own <= 1.2 * error.total for error in found)
    assert found[-1].total > found[-1].own
