"""Zeros stay zeros; what is left is the least squares on each output's own support."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.model.copies import copy_model
from compress.reconstruction import repair
from tests.compress.reconstruction.dependent import off, smooth

pytestmark = pytest.mark.usefixtures("unrounded")

L = keras.layers
SHAPE = (7, 7, 3)


@pytest.fixture(scope="module")
def dense() -> Any:
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="first")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    y = L.Conv2D(8, 3, padding="same", groups=2, name="grouped")(x)
    x = L.Add()([x, L.DepthwiseConv2D(3, padding="same", name="depthwise")(y)])
    x = L.SeparableConv2D(12, 3, activation="relu", name="separable")(x)
    x = L.Dense(10, name="hidden")(L.Flatten()(x))
    return keras.Model(inputs, L.Dense(3, name="head")(L.Activation("tanh")(x)))


def smallest(model: Any, share: float) -> dict[str, Any]:
    """Masks out the smallest weights of every kernel but the last."""
    return {
        weight.path.partition("/")[0] + "/" + weight.path.partition("/")[2]: (
            np.abs(weight.numpy()) > np.quantile(np.abs(weight.numpy()), share)
        )
        for layer in model.layers
        for weight in layer.weights
        if len(weight.shape) > 1 and layer.name != "head"
    }


@pytest.mark.parametrize("applied", [True, False], ids=["zeros", "not yet zeros"])
def test_zeros_stay_and_errors_fall(dense: Any, applied: bool) -> None:
    masks = smallest(dense, 0.6)
    assert len(masks) == 6
    broken, sparse = copy_model(dense), copy_model(dense)
    for model in (broken, sparse) if applied else (broken,):
        for weight in model.weights:
            if weight.path in masks:
                weight.assign(weight.numpy() * masks[weight.path])
    report = repair(sparse, dense, smooth(SHAPE, 200), masks=masks)
    for weight in sparse.weights:
        if weight.path in masks:
            assert not weight.numpy()[~masks[weight.path]].any(), weight.path
    fresh = smooth(SHAPE, 60, seed=9)
    assert off(sparse, dense, fresh) < 0.7 * off(broken, dense, fresh)
    assert report.output_error[0][1] < report.output_error[0][0]
    assert report.repaired >= 5


@pytest.mark.parametrize("pattern", ["free", "2:4", "columns"])
def test_the_first_layer_is_the_masked_least_squares(pattern: str) -> None:
    """Against `numpy.linalg.solve`, output by output; inputs are the same in both models."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((12,))
    dense = keras.Model(inputs, L.Dense(8, name="d")(inputs))
    dense.get_layer("d").kernel.assign(rng.normal(size=(12, 8)))
    kernel = dense.get_layer("d").kernel.numpy().astype(np.float64)
    if pattern == "free":
        mask = rng.random((12, 8)) < 0.5
    elif pattern == "2:4":
        order = np.argsort(np.abs(kernel).reshape(3, 4, 8), axis=1)
        mask = (np.argsort(order, axis=1) >= 2).reshape(12, 8)
    else:  # supports that outputs share
        mask = np.repeat(rng.random((12, 2)) < 0.5, 4, axis=1)
    mask[0] = True
    mixing = rng.normal(size=(12, 12))
    x = (rng.normal(size=(400, 12)) @ mixing).astype(np.float32)
    sparse = copy_model(dense)
    report = repair(sparse, dense, x, masks={"d/kernel": mask})
    (row,) = report.layers
    assert row.state == "repaired"
    p = x.astype(np.float64)
    t = p @ kernel
    p, t = p - p.mean(0), t - t.mean(0)
    a = p.T @ p
    ridge = row.ridge * np.diag(np.diag(a))
    for output in range(8):
        s = np.flatnonzero(mask[:, output])
        left = (p.T @ t)[s, output] + ridge[np.ix_(s, s)] @ kernel[s, output]
        best = np.linalg.solve((a + ridge)[np.ix_(s, s)], left)
        found = sparse.get_layer("d").kernel.numpy()[:, output]
        np.testing.assert_allclose(found[s], best, rtol=1e-3, atol=1e-4)
        assert not np.delete(found, s).any()


def test_what_masks_leave_is_exact_where_it_can_be() -> None:
    """Inputs in equal pairs: one of a pair does what both did."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((10,))
    dense = keras.Model(inputs, L.Dense(4, name="d")(inputs))
    x = np.repeat(rng.normal(size=(200, 5)), 2, axis=1).astype(np.float32)
    mask = np.zeros((10, 4), bool)
    mask[np.arange(0, 10, 2)[:, None] + rng.integers(0, 2, (5, 4)), np.arange(4)] = True
    sparse = copy_model(dense)
    repair(sparse, dense, x, masks={"d/kernel": mask})
    kernel = dense.get_layer("d").kernel.numpy()
    pairs = kernel.reshape(5, 2, 4).sum(1)
    np.testing.assert_allclose(
        sparse.get_layer("d").kernel.numpy().reshape(5, 2, 4).sum(1), pairs, atol=1e-4
    )
    assert off(sparse, dense, x) < 1e-4


def test_more_inputs_than_rows_are_solved_on_supports() -> None:
    """The dual form: flattened inputs wider than there are examples."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((300,))
    dense = keras.Model(inputs, L.Dense(5, name="d")(inputs))
    latent = rng.normal(size=(10, 300))  # inputs of few degrees of freedom
    x = (rng.normal(size=(80, 10)) @ latent).astype(np.float32)
    mask = rng.random((300, 5)) < 0.2
    sparse = copy_model(dense)
    repair(sparse, dense, x, masks={"d/kernel": mask})
    fresh = (rng.normal(size=(50, 10)) @ latent).astype(np.float32)
    assert not sparse.get_layer("d").kernel.numpy()[~mask].any()
    assert off(sparse, dense, fresh) < 1e-2
