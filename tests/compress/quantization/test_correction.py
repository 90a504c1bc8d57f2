"""Biases that make up for rounding: means of channels against arithmetic done by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.model.copies import copy_model
from compress.quantization.calibration import calibrate
from compress.quantization.correction import correct_biases
from compress.quantization.twin import Twin, twin_of
from tests.compress.quantization.graphs import scatter

L = keras.layers


def twin_for(model: Any, x: Any) -> Twin:
    twin = twin_of(model)
    calibrate(twin, [x], "minmax")
    return twin


def test_a_bias_takes_over_what_rounding_moved() -> None:
    inputs = keras.Input((2,))
    layer = L.Dense(1, name="one")
    model = keras.Model(inputs, layer(inputs))
    # 0.3 is 38.1 of 127 steps: 38 steps are 0.29921...
    layer.kernel.assign([[1.0], [0.3]])
    layer.bias.assign([0.25])
    x = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    assert correct_biases(twin_for(model, x), [x]) == 1
    assert float(layer.bias.numpy()[0]) == pytest.approx(0.25 + 0.3 - 38 / 127, abs=1.6e-5)


def test_the_offset_of_a_normalization_does_it_where_there_is_one() -> None:
    inputs = keras.Input((6, 6, 3))
    x = L.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    model = keras.Model(inputs, L.ReLU()(L.BatchNormalization(name="norm")(x)))
    scatter(model, np.random.default_rng(0))
    before = {w.path: w.numpy().copy() for w in model.weights}
    given = np.random.default_rng(1).normal(size=(64, 6, 6, 3)).astype(np.float32)
    assert correct_biases(twin_for(model, given), [given]) == 1
    changed = {w.path for w in model.weights if not np.array_equal(w.numpy(), before[w.path])}
    assert changed == {"norm/beta"}


@pytest.mark.parametrize("kind", ["conv", "dense", "separable", "transposed"])
def test_means_are_nearer(kind: str) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    make = {
        "conv": lambda: [L.Conv2D(8, 3), L.Conv2D(4, 3)],
        "dense": lambda: [L.Dense(9, activation="relu"), L.Dense(5)],
        "separable": lambda: [L.SeparableConv2D(8, 3), L.DepthwiseConv2D(3)],
        "transposed": lambda: [L.Conv2DTranspose(6, 3, strides=2, padding="same"), L.Conv2D(4, 1)],
    }[kind]
    x = inputs
    for layer in make():
        x = layer(x)
    model = keras.Model(inputs, x)
    scatter(model, np.random.default_rng(0))
    plain = copy_model(model)
    given = np.random.default_rng(1).normal(size=(128, 8, 8, 3)).astype(np.float32)
    twin = twin_for(model, given)

    def moved() -> float:
        rows = np.asarray(twin.served(given, training=False)) - np.asarray(plain(given))
        return float(np.abs(rows.reshape(-1, rows.shape[-1]).mean(0)).max())

    before = moved()
    assert correct_biases(twin, [given]) >= 2
    assert moved() < 0.7 * before


def test_a_kernel_without_a_bias_is_left() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2, use_bias=False)(inputs))
    given = np.random.default_rng(1).normal(size=(32, 3)).astype(np.float32)
    assert correct_biases(twin_for(model, given), [given]) == 0
