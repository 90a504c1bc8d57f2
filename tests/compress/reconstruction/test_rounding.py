"""Rounding in turn against its equations written out, and against the nearest values."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.core.errors import InputError
from compress.model.copies import copy_model
from compress.reconstruction import repair
from compress.reconstruction import rounding as module
from compress.reconstruction.rounding import compute_products, round_to_nearest, round_weights
from compress.reconstruction.sums import Moments, StoredRows
from tests.compress.prune.channels.law import outputs_of, randomize

RNG = np.random.default_rng(0)
MOST = 7


def correlated(rows: int, columns: int) -> Any:
    """Inputs of which each tells something of the others, of different sizes."""
    mixed = RNG.normal(size=(rows, columns)) @ RNG.normal(size=(columns, columns))
    return mixed * np.geomspace(1, 0.1, columns)


def lost(products: Any, weights: Any, values: Any) -> Any:
    """Squared error of the outputs, by output."""
    off = weights - values
    return np.einsum("do,de,eo->o", off, products, off)


def one_by_one(products: Any, weights: Any, step: Any, most: int) -> Any:
    """GPTQ's equation 2 with its update of the inverse, equation 3, as they are written."""
    left, inverse = weights.copy(), np.linalg.inv(products)
    whole = np.zeros_like(weights)
    for column in np.argsort(-np.diag(products), kind="stable"):
        whole[column] = np.clip(np.round(left[column] / step), -most, most)
        rest = left[column] - whole[column] * step
        left -= np.outer(inverse[:, column], rest) / inverse[column, column]
        row = inverse[column].copy()
        inverse -= np.outer(inverse[:, column], row) / inverse[column, column]
    return whole * step


@pytest.mark.parametrize("block", [4, 64])
def test_it_is_gptqs_equation(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    rows = correlated(500, 18)
    products, weights = rows.T @ rows, RNG.normal(size=(18, 5))
    diagonal = np.diag(products)
    damped = products + np.diag(0.01 * np.maximum(diagonal, diagonal.mean()))
    factor, order = module._factor_inverse(damped)
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(damped[np.ix_(order, order)]))
    step = np.abs(weights).max(0) / MOST
    found = module._round_in_order(factor, order, weights, step, MOST, None) * step
    np.testing.assert_allclose(found, one_by_one(damped, weights, step, MOST), atol=1e-12)


def test_by_hand() -> None:
    # of two like inputs the second takes what the first loses: 1.4 -> 1, and 1.4 + 0.4 -> 2
    products = np.ones((2, 2)) + 1e-9 * np.eye(2)
    factor, order = module._factor_inverse(products)
    found = module._round_in_order(factor, order, np.full((2, 1), 1.4), np.ones(1), MOST, None)
    assert sorted(found[:, 0]) == [1, 2]


def test_outputs_are_nearer_than_with_nearest_values() -> None:
    rows = correlated(2000, 40)
    products, weights = rows.T @ rows, RNG.normal(size=(40, 30))
    found = round_weights(products[None], weights[None], MOST)[0]
    plain = round_to_nearest(weights[None], MOST)[0]
    assert lost(products, weights, found).sum() < 0.5 * lost(products, weights, plain).sum()


def test_an_output_that_misses_the_end_of_its_grid_takes_the_nearest_values() -> None:
    """Three times the grid is narrowed, and in this system no weight reaches its end."""
    rng = np.random.default_rng(2947)
    rng.integers(2, 6)  # the draw that this seed was found with
    rows = rng.normal(size=(40, 4)) @ rng.normal(size=(4, 4))
    products, weights = rows.T @ rows + 1e-3 * np.eye(4), rng.normal(size=(4, 1))
    found = module._round_system(products, weights, 127, None)
    np.testing.assert_allclose(found, round_to_nearest(weights[None], 127)[0])


def test_inputs_that_tell_nothing_of_each_other_leave_the_nearest_values_of_the_grid() -> None:
    products, weights = np.diag([4.0, 1.0, 9.0]), RNG.normal(size=(3, 8))
    found = round_weights(products[None], weights[None], MOST)[0]
    step = np.abs(found).max(0) / MOST
    np.testing.assert_allclose(found, np.clip(np.round(weights / step), -MOST, MOST) * step)
    assert np.all(lost(products, weights, found) <= lost(products, weights, round_to_nearest(
        weights[None], MOST)[0]) + 1e-12)  # fmt: skip


@pytest.mark.parametrize("most", [1, 3, 7])
def test_each_output_reaches_the_end_of_its_grid(most: int) -> None:
    rows = correlated(300, 12)
    weights = RNG.normal(size=(2, 12, 40))
    weights[0, :, 3] = 0  # nothing to reach
    products = np.stack([rows.T @ rows] * 2)
    found = round_weights(products, weights, most)
    assert not found[0, :, 3].any()
    step = np.abs(found).max(1, keepdims=True) / most
    whole = found / np.where(step > 0, step, 1)
    np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
    assert np.abs(whole).max() == pytest.approx(most)


def test_what_a_mask_leaves_out_stays_zero() -> None:
    rows = correlated(300, 16)
    weights = RNG.normal(size=(1, 16, 10))
    support = RNG.random(weights.shape) < 0.5
    products = (rows.T @ rows)[None]
    found = round_weights(products, weights * support, MOST, support)
    assert not found[~support].any()
    plain = round_to_nearest(weights * support, MOST)[0]
    errors = (lost(products[0], (weights * support)[0], part).sum() for part in (found[0], plain))
    assert next(errors) < next(errors)


def test_inputs_that_are_always_zero_take_nothing() -> None:
    rows = correlated(300, 8)
    rows[:, 5] = 0
    weights = RNG.normal(size=(1, 8, 4))
    found = round_weights((rows.T @ rows)[None], weights, MOST)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("free", [True, False])
def test_products_are_numpys(free: bool) -> None:
    rows, targets = correlated(50, 6)[None] + 3, RNG.normal(size=(1, 50, 2))
    moments = Moments.from_offsets((rows.mean(1), targets.mean(1)))
    moments.add(rows, targets)
    few = StoredRows()
    few.add(rows, targets)
    wanted = rows[0] - rows[0].mean(0) if free else rows[0]
    for sums in (moments, few):
        np.testing.assert_allclose(compute_products(sums, free)[0], wanted.T @ wanted, rtol=1e-9)


def net() -> Any:
    """Convolutions with and without normalization, a residual sum, dense layers."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="apart")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="sum")(y)])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(4, name="last")(x))
    randomize(model, np.random.default_rng(1))
    return model


KERNELS = ("first", "sum", "hidden", "last")


def plainly(model: Any) -> Any:
    """The same model with the nearest values."""
    made = copy_model(model)
    for name in KERNELS:
        kernel = made.get_layer(name).kernel
        values = kernel.numpy().astype(float).reshape(-1, kernel.shape[-1])
        kernel.assign(round_to_nearest(values[None], MOST)[0].reshape(kernel.shape))
    return made


def test_a_models_kernels_lie_on_grids_and_its_outputs_stay_nearer() -> None:
    model, x = net(), RNG.normal(size=(400, 8, 8, 3)).astype("float32")
    made = copy_model(model)
    paths = {made.get_layer(name).kernel.path: MOST for name in KERNELS}
    apart = [weight.numpy() for weight in made.get_layer("apart").weights]
    report = repair(made, model, x[:300], grids=paths)
    rows = {row.name: row for row in report.layers}
    for name in KERNELS:
        kernel = made.get_layer(name).kernel.numpy().astype(float)
        values = kernel.reshape(-1, kernel.shape[-1])
        whole = values / (np.abs(values).max(0) / MOST)
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-4)
        assert rows[name].after <= rows[name].before
    assert report.repaired >= len(KERNELS)
    # what has no grid is repaired as ever
    assert any(not np.array_equal(old, new.numpy()) for old, new in
               zip(apart, made.get_layer("apart").weights, strict=True))  # fmt: skip
    (wanted,), *made_by = (outputs_of(part, x[300:]) for part in (model, made, plainly(model)))
    off = [np.square(found - wanted).sum() for (found,) in made_by]
    assert off[0] < 0.5 * off[1]


@pytest.mark.parametrize("grid", [{"nowhere/kernel": 7}, {"first/kernel": 0}, {"sum/bias": 7}])
def test_grids_that_are_none(grid: dict[str, int]) -> None:
    model = net()
    with pytest.raises(InputError, match=r"A grid must name a kernel of the pruned model"):
        repair(copy_model(model), model, np.zeros((30, 8, 8, 3)), grids=grid)
