"""Criteria against arithmetic by hand on small nets; the contract for each of them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.core.errors import InputError
from compress.data import Dataset
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.criteria import CRITERIA, NEEDS_DATA, Context
from tests.compress.prune.channels.law import randomize
from tests.same import same_arrays


def chain() -> Any:
    """4 -> Dense "a" (6) -> BatchNormalization -> ReLU -> Dense "b" (3)."""
    inputs = keras.Input((4,))
    x = layers.Dense(6, name="a")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    model = keras.Model(inputs, layers.Dense(3, name="b")(x))
    randomize(model, np.random.default_rng(4))
    return model


def weights(model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        model.get_layer("a").kernel.numpy(),
        model.get_layer("bn").gamma.numpy(),
        model.get_layer("b").kernel.numpy(),
    )


def score(model: Any, name: str, **settings: Any) -> np.ndarray:
    coupling = analyze_coupling(model)
    assert len(coupling.groups) == 1
    return np.asarray(CRITERIA[name](coupling.groups[0], Context(coupling, **settings)))


@pytest.mark.parametrize("name", CRITERIA.names())
def test_contract(name: str, blobs: Dataset) -> None:
    """One finite number a unit, the same again, nothing in the model changed."""
    model = chain()
    before = model.get_weights()
    found = score(model, name, data=blobs, seed=3)
    assert found.shape == (6,)
    assert np.all(np.isfinite(found))
    assert np.all(found >= 0)
    np.testing.assert_array_equal(found, score(model, name, data=blobs, seed=3))
    same_arrays(before, model.get_weights())


@pytest.mark.parametrize("name", CRITERIA.names())
def test_contract_on_convolutions_heads_and_flattening(name: str, digits: Dataset) -> None:
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(6, 3, strides=2, name="conv")(inputs)
    x = layers.Reshape((9, 6))(x)
    x = layers.MultiHeadAttention(4, 3, name="attention")(x, x)
    x = layers.Dense(10)(layers.Flatten()(x))
    coupling = analyze_coupling(keras.Model(inputs, x))
    context = Context(coupling, data=digits, examples=64)
    assert len(coupling.groups) > 1
    for group in coupling.groups:
        found = np.asarray(CRITERIA[name](group, context))
        assert found.shape == (len(group.units),)
        assert np.all(np.isfinite(found))


def test_magnitudes() -> None:
    model = chain()
    a, gamma, b = weights(model)
    for name, power in (("l1", 1), ("l2", 2)):
        parts = np.stack([
            (np.abs(a) ** power).sum(0) ** (1 / power),
            (np.abs(b) ** power).sum(1) ** (1 / power),
            np.abs(gamma),
        ])  # fmt: skip
        np.testing.assert_allclose(score(model, name), parts.mean(0), rtol=1e-6)


def test_criteria_that_gained_nothing_say_what_to_use() -> None:
    for name in ("bn_scale", "fpgm"):
        with pytest.raises(InputError, match=f"'{name}'.*gains anything over l2. Use l2"):
            score(chain(), name)


def test_taylor(blobs: Dataset) -> None:
    """Against the loss itself: the derivative by a common factor of all a unit owns."""
    model = chain()
    part = blobs.train
    x, y = blobs.preprocess(part.x), part.y
    found = score(model, "taylor", data=blobs, examples=len(part))
    order = np.random.default_rng(0).permutation(len(part))
    expected = np.zeros(6)
    batches = [order[start : start + 128] for start in range(0, len(order), 128)]
    for batch in batches:
        for unit in range(6):
            slopes = [loss_with(model, unit, f, x[batch], y[batch]) for f in (1 + 1e-4, 1 - 1e-4)]
            expected[unit] += ((slopes[0] - slopes[1]) / 2e-4) ** 2
    np.testing.assert_allclose(found, expected / len(batches), rtol=2e-3, atol=1e-7)


def loss_with(model: Any, unit: int, factor: float, x: np.ndarray, y: np.ndarray) -> float:
    """Cross-entropy in float64 when the weights of one unit are multiplied by a factor."""
    a, gamma, b = (value.astype(np.float64) for value in weights(model))
    bias = model.get_layer("a").bias.numpy().astype(np.float64)
    bn, last = model.get_layer("bn"), model.get_layer("b").bias.numpy().astype(np.float64)
    beta = bn.beta.numpy().astype(np.float64)
    for value in (a[:, unit : unit + 1], b[unit : unit + 1]):
        value *= factor
    for value in (bias, gamma, beta):
        value[unit] *= factor
    mean, variance = (np.float64(v.numpy()) for v in (bn.moving_mean, bn.moving_variance))
    z = gamma * (x @ a + bias - mean) / np.sqrt(variance + bn.epsilon) + beta
    logits = np.maximum(z, 0) @ b + last
    logits -= logits.max(1, keepdims=True)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]))


def test_activation(blobs: Dataset) -> None:
    model = chain()
    order = np.random.default_rng(0).permutation(len(blobs.train))[:128]
    x = blobs.preprocess(blobs.train.x[order])
    hidden = np.asarray(keras.Model(model.input, model.get_layer("relu").output)(x))
    found = score(model, "activation", data=blobs, examples=128)
    np.testing.assert_allclose(found, np.abs(hidden).mean(0), rtol=1e-5)


def test_units_that_are_zero_on_all_examples_leave_first(blobs: Dataset) -> None:
    model = chain()
    # of the largest weights, and never active
    kernel, bias = model.get_layer("a").kernel, model.get_layer("bn").beta
    kernel.assign(kernel.numpy() * np.where(np.isin(np.arange(6), (1, 4)), 100.0, 1.0))
    bias.assign(np.where(np.isin(np.arange(6), (1, 4)), -1e6, bias.numpy()))
    x = blobs.preprocess(blobs.train.x)
    small = prune_channels(model, params=0.7, data=blobs, repair=False, round_to=1)
    assert small.model.get_layer("a").units == 4
    np.testing.assert_array_equal(small.kept[model.get_layer("a").kernel.path][1], [0, 2, 3, 5])
    np.testing.assert_allclose(small.model(x), model(x), rtol=1e-5, atol=1e-6)
    (note,) = (text for text in small.report.notes if "zero on all" in text)
    assert "2 of 6 units" in note
    # nothing is known of them without examples
    blind = prune_channels(model, params=0.7, round_to=1)
    assert {1, 4} <= set(blind.kept[model.get_layer("a").kernel.path][1])


@pytest.mark.parametrize("row", [0, 40, 99])
def test_a_unit_that_one_example_activates_is_not_dead(row: int) -> None:
    model = chain()
    kernel, bn = model.get_layer("a").kernel.numpy(), model.get_layer("bn")
    kernel[:, 1] = 100, 0, 0, 0
    model.get_layer("a").set_weights([kernel, np.zeros(6)])
    values = [np.array(value) for value in bn.get_weights()]
    for value, scale in zip(values, (1, -500, 0, 1), strict=True):  # active where x[0] > 5
        value[1] = scale
    values[1][4] = -1e6  # never active
    bn.set_weights(values)
    x = np.random.default_rng(2).normal(size=(100, 4)).astype(np.float32)
    x[row, 0] = 10
    small = prune_channels(model, params=0.7, data=x, repair=False, round_to=1)
    (note,) = (text for text in small.report.notes if "zero on all" in text)
    assert "1 of 6 units" in note
    assert "100 calibration examples" in note


@pytest.mark.parametrize("name", NEEDS_DATA)
def test_data_is_asked_for(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' must have data"):
        score(chain(), name)


def test_a_channel_before_flatten_owns_all_its_positions() -> None:
    inputs = keras.Input((2, 2, 1))
    x = layers.Flatten()(layers.Conv2D(3, 1, use_bias=False, name="c")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="d")(x))
    randomize(model, np.random.default_rng(1))
    kernel, dense = model.get_layer("c").kernel.numpy(), model.get_layer("d").kernel.numpy()
    parts = [np.abs(kernel).sum((0, 1, 2)), np.abs(dense.reshape(4, 3, 2)).sum((0, 2))]
    np.testing.assert_allclose(score(model, "l1"), np.mean(parts, 0), rtol=1e-6)


def test_coupling_is_shared_by_contexts() -> None:
    coupling = analyze_coupling(chain())
    assert isinstance(coupling, Coupling)
    assert Context(coupling).slices(coupling.groups[0])


def test_the_criterion_of_the_contributors_guide() -> None:
    """As it stands in CONTRIBUTING.md: the mean over "a"'s columns and "b"'s rows."""
    text = (Path(__file__).parents[4] / "CONTRIBUTING.md").read_text("utf-8")
    (block,) = re.findall(r"^ +```python\n(.*?)^ +```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(block), "CONTRIBUTING.md", "exec"), names)
    model = chain()
    coupling = analyze_coupling(model)
    found = names["spread"](coupling.groups[0], Context(coupling))
    a, _, b = weights(model)
    np.testing.assert_allclose(found, (a.std(0) + b.std(1)) / 2, rtol=1e-5)
