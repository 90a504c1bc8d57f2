"""Weights on inputs that are nearly always zero stay as small as int8 files need them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.reconstruction import repair
from compress.reconstruction.least_squares import Problem
from compress.reconstruction.sampling import estimate_rounding_noise
from compress.reconstruction.sums import Moments, Sample, StoredRows

UNITS = 12
KEPT = np.array([0, 1, 2, 3, 4, UNITS - 1])
"""The last hidden unit is nearly always zero."""


def dense_model(outputs: int) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((UNITS,)),
            keras.layers.Dense(UNITS, activation="relu", name="hidden"),
            keras.layers.Dense(outputs, name="out"),
        ]
    )
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(UNITS, UNITS))
    kernel[:, -1], kernel[-1] = 0.0, 0.0
    kernel[-1, -1] = 1.0
    model.get_layer("hidden").set_weights([kernel, np.zeros(UNITS)])
    model.get_layer("out").set_weights([rng.normal(size=(UNITS, outputs)), np.zeros(outputs)])
    return model


def examples(count: int) -> Any:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, UNITS)).astype(np.float32)
    x[:, -1] = np.where(np.arange(count) % 150 == 0, 1e-3, 0.0)
    return x


def test_weights_do_not_explode_on_an_input_that_is_nearly_always_zero() -> None:
    model, x = dense_model(4), examples(1500)
    small = keras.Sequential(
        [
            keras.Input((UNITS,)),
            keras.layers.Dense(len(KEPT), activation="relu", name="hidden"),
            keras.layers.Dense(4, name="out"),
        ]
    )
    kernel, bias = model.get_layer("hidden").get_weights()
    small.get_layer("hidden").set_weights([kernel[:, KEPT], bias[KEPT]])
    kernel, bias = model.get_layer("out").get_weights()
    small.get_layer("out").set_weights([kernel[KEPT], bias])
    paths = {layer.name: layer.kernel.path for layer in model.layers}
    kept = {paths["hidden"]: (None, KEPT), paths["out"]: (KEPT, None)}
    report = repair(small, model, x, kept=kept)
    (before, after), *_ = report.output_error
    assert after < before
    assert np.abs(small.get_layer("out").kernel.numpy()).max() < 5 * np.abs(kernel).max()
    # by hand what an int8 file makes: hidden numbers are rounded to 255 steps
    hidden = keras.Model(small.inputs[0], small.layers[0].output)(x).numpy()
    step = hidden.max() / 255
    weights, shift = small.get_layer("out").get_weights()
    exact, rounded = (part @ weights + shift for part in (hidden, np.round(hidden / step) * step))
    assert np.square(rounded - exact).sum() < 1e-3 * np.square(exact - exact.mean(0)).sum()


@pytest.mark.parametrize("rows", [200, 6])
def test_noise_is_as_rows_with_that_noise(rows: int) -> None:
    """Solutions and errors are those of ordinary ridge regression, written down with NumPy."""
    rng, ridge = np.random.default_rng(0), 0.01
    p = rng.uniform(size=(rows, 8)).astype(np.float32)
    t = rng.normal(size=(rows, 3)).astype(np.float32)
    w0 = rng.normal(size=(8, 3))
    noise = 0.05
    sums = Sample(p[None], t, noise=noise).compute_sums()
    assert isinstance(sums, Moments if rows > 8 else StoredRows)
    weights, shift = Problem(w0[None]).solve(sums, ridge)
    centred, targets = p - p.mean(0, dtype=np.float64), t - t.mean(0, dtype=np.float64)
    products = centred.T @ centred
    pull = np.diag(rows * noise + ridge * (np.diag(products) + (rows * noise if rows > 8 else 0)))
    expected = w0 + np.linalg.solve(products + pull, centred.T @ (targets - centred @ w0))
    np.testing.assert_allclose(weights[0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        sums.compute_errors(weights, shift)[0],
        np.square(p @ weights[0] + shift - t).sum(0) + rows * noise * np.square(weights[0]).sum(0),
        rtol=1e-5,
    )


def test_steps_of_a_tensor_reach_to_zero() -> None:
    # 255 steps of 2 / 255 from 0 to 2; uniform errors have a twelfth of the step's square
    assert estimate_rounding_noise(np.float32([1, 2])) == pytest.approx((2 / 255) ** 2 / 12)
    assert estimate_rounding_noise(np.float32([-1, 2])) == pytest.approx((3 / 255) ** 2 / 12)
