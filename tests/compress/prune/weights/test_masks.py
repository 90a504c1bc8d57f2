"""Masks against NumPy: selection, ties, global ranking, ERK, patterns of every kind of kernel."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from compress.plan import WeightOptions
from compress.prune.weights import WeightPruner, find_targets
from compress.prune.weights.masks import (
    compute_erk_sparsities,
    compute_exact_masks,
    compute_layer_mask,
    find_kth_largest,
)


@pytest.mark.parametrize("size", [1, 7, 1000, 200_000])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
def test_kth_largest(size: int, kind: str) -> None:
    """200,000 entries go the way of counting bits."""
    rng = np.random.default_rng(size)
    values = np.abs(rng.normal(size=size)).astype(np.float32)
    if kind == "ties":
        values = np.round(values, 1)
    elif kind == "zeros":
        values[rng.random(size) < 0.6] = 0
    order = np.sort(values)[::-1]
    for count in sorted({1, max(1, size // 5), max(1, size // 2), size}):
        found = find_kth_largest(tf.constant(values), tf.constant(count))
        assert found.numpy() == order[count - 1]


def oracle_global(weights: list[np.ndarray], keep: int) -> list[np.ndarray]:
    """The `keep` largest; of equal ones the first in the order of layers and memory."""
    flat = np.concatenate([np.abs(weight).ravel() for weight in weights])
    kept = np.zeros(len(flat), bool)
    kept[np.argsort(-flat, kind="stable")[:keep]] = True
    parts = np.split(kept, np.cumsum([weight.size for weight in weights])[:-1])
    return [part.reshape(weight.shape) for part, weight in zip(parts, weights, strict=True)]


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("keep", [1, 40, 300, 735])
def test_exact_numbers_with_ties_broken_in_order(digits: int | None, keep: int) -> None:
    rng = np.random.default_rng(keep)
    weights = [rng.normal(size=shape) for shape in ((3, 3, 4, 5), (20, 25), (55,))]
    weights = [weight if digits is None else np.round(weight, digits) for weight in weights]
    parts = [tf.constant(np.abs(weight), tf.float32) for weight in weights]
    expected = oracle_global([weight.astype(np.float32) for weight in weights], keep)
    found = compute_exact_masks(parts, tf.constant(keep))
    assert sum(int(mask.numpy().sum()) for mask in found) == keep
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.numpy(), two)


def test_of_one_layer_ties_stay() -> None:
    values = tf.constant([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    np.testing.assert_array_equal(compute_layer_mask(values, 0.5).numpy(), [1, 0, 1, 1, 1, 0])


def net() -> Any:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="first")(inputs)
    x = layers.Conv2D(16, 3, name="wide")(x)
    x = layers.Conv2D(8, 1, name="narrow")(x)
    x = layers.Dense(12, name="hidden")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="last")(x))


def zeros(model: Any, name: str) -> float:
    return float((model.get_layer(name).kernel.numpy() == 0).mean())


def test_global_scope() -> None:
    model = net()
    names = ["first", "wide", "narrow", "hidden", "last"]
    before = [model.get_layer(name).kernel.numpy() for name in names]
    WeightPruner(WeightOptions(sparsity=0.9, scope="global", include=("ends",))).once(model)
    keep = round(sum(value.size for value in before) * 0.1)
    for name, value, kept in zip(names, before, oracle_global(before, keep), strict=True):
        np.testing.assert_array_equal(
            model.get_layer(name).kernel.numpy(), np.where(kept, value, 0)
        )


def test_erk_by_hand() -> None:
    # densities 20/100 f and 110/1000 f: 0.2 f * 100 + 0.11 f * 1000 = 0.2 * 1100 -> f = 22 / 13
    found = compute_erk_sparsities([(10, 10), (10, 100)], 0.8)
    np.testing.assert_allclose(found, [1 - 0.2 * 22 / 13, 1 - 0.11 * 22 / 13])
    # the first would be denser than 1: it stays dense, the other takes the rest of the budget
    found = compute_erk_sparsities([(2, 2), (100, 100)], 0.9)
    np.testing.assert_allclose(found, [0.0, 1 - (0.1 * 10004 - 4) / 10000])
    np.testing.assert_array_equal(compute_erk_sparsities([(2, 2), (3, 3)], 0.0), [0.0, 0.0])


def test_erk_scope() -> None:
    model = net()
    names = ["wide", "narrow", "hidden"]
    before = {name: model.get_layer(name).kernel.numpy() for name in names}
    shapes = [value.shape for value in before.values()]
    WeightPruner(WeightOptions(sparsity=0.8, scope="erk")).once(model)
    for name, share in zip(names, compute_erk_sparsities(shapes, 0.8), strict=True):
        value = before[name]
        keep = max(1, int(np.round(np.float32(value.size) * (1 - np.float32(share)))))
        (kept,) = oracle_global([value], keep)
        np.testing.assert_array_equal(
            model.get_layer(name).kernel.numpy(), np.where(kept, value, 0)
        )


def test_overrides() -> None:
    model = net()
    options = WeightOptions(
        sparsity=0.75, overrides=("*=0.5", "hidden=0.9", "narrow=0"), include=("ends",)
    )
    report = WeightPruner(options).once(model)
    assert zeros(model, "wide") == 0.5
    assert zeros(model, "first") == 0.5
    assert zeros(model, "hidden") == pytest.approx(0.9, abs=1e-3)
    assert zeros(model, "narrow") == 0
    assert [row.reason for row in report.kept if row.layer == "narrow"] == ["kept by an override"]


def test_overridden_layers_leave_the_global_ranking() -> None:
    model = net()
    WeightPruner(WeightOptions(sparsity=0.75, scope="global", overrides=("hidden=0.5",))).once(
        model
    )
    assert zeros(model, "hidden") == pytest.approx(0.5, abs=1e-3)
    both = [model.get_layer(name).kernel.numpy() for name in ("wide", "narrow")]
    assert sum((value == 0).sum() for value in both) == round(0.75 * sum(v.size for v in both))


@pytest.mark.parametrize("block", [(2, 4), (3, 5), (1, 8)])
def test_blocks_of_convolutions(block: tuple[int, int]) -> None:
    """By hand, block by block; 3 x 5 leaves smaller blocks at the borders of 8 x 16."""
    model = net()
    value = model.get_layer("wide").kernel.numpy()  # (3, 3, 8, 16)
    rows, columns = block
    options = WeightOptions(sparsity=0.6, pattern=f"{rows}x{columns}")
    WeightPruner(options).once(model)
    scores = {}
    for place in np.ndindex(3, 3, -(-8 // rows), -(-16 // columns)):
        scores[place] = np.abs(_part(value, place, rows, columns)).mean()
    keep = round(len(scores) * 0.4)
    best = set(sorted(scores, key=lambda place: -scores[place])[:keep])
    expected = value.copy()
    for place in scores:
        if place not in best:
            _part(expected, place, rows, columns)[...] = 0
    np.testing.assert_array_equal(model.get_layer("wide").kernel.numpy(), expected)


def _part(value: np.ndarray, place: tuple[int, ...], rows: int, columns: int) -> np.ndarray:
    a, b, i, j = place
    return value[a, b, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns]


def runs_of(name: str, value: np.ndarray, m: int) -> np.ndarray:
    """Runs of M along the input axis, (runs, m), inputs cut off behind the last whole run."""
    axis = {"transposed": -1}.get(name, -2)
    moved = np.moveaxis(value, axis, -1)
    return moved[..., : moved.shape[-1] // m * m].reshape(-1, m)


def test_n_m_on_every_kind_of_kernel() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 8))
    x = layers.Conv2DTranspose(10, 3, name="transposed")(inputs)
    x = layers.SeparableConv2D(9, 3, name="separable")(x)
    x = layers.Reshape((36, 9))(x)
    x = layers.Conv1D(8, 3, name="sequence")(x)
    x = layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LSTM(8, name="memory")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    options = WeightOptions(pattern="2:4", include=("ends",))
    report = WeightPruner(options).once(model)
    pruned = [row.layer for row in report.pruned]
    assert pruned == [
        "transposed", "separable", "sequence",
        "attention/query", "attention/key", "attention/value", "attention/attention_output",
        "memory/lstm_cell", "memory/lstm_cell", "out",
    ]  # fmt: skip
    for name in ("transposed", "sequence", "out"):
        runs = runs_of(name, model.get_layer(name).kernel.numpy(), 4)
        assert set((runs != 0).sum(1)) == {2}, name
    attention = model.get_layer("attention")
    query = attention.query_dense.kernel.numpy().reshape(8, 8)
    output = attention.output_dense.kernel.numpy().reshape(8, 8)
    for matrix in (query, output):
        assert set((runs_of("", matrix, 4) != 0).sum(1)) == {2}


def test_a_transposed_kernel_keeps_the_largest_of_each_run() -> None:
    inputs = keras.Input((4, 4, 8))
    model = keras.Model(inputs, layers.Conv2DTranspose(5, 3, name="t")(inputs))
    value = model.get_layer("t").kernel.numpy()  # (3, 3, outputs, inputs)
    WeightPruner(WeightOptions(pattern="1:4", include=("ends",))).once(model)
    runs = value.reshape(-1, 4)
    largest = np.abs(runs) == np.abs(runs).max(1, keepdims=True)
    np.testing.assert_array_equal(
        model.get_layer("t").kernel.numpy(), np.where(largest, runs, 0).reshape(value.shape)
    )


def test_targets_and_reasons() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a")(inputs)
    x = layers.DepthwiseConv2D(3, name="dw")(x)
    x = layers.SeparableConv2D(4, 3, name="sep")(x)
    x = layers.Conv2D(4, 1, name="frozen", trainable=False)(x)
    x = layers.LayerNormalization(name="ln")(x)
    x = layers.Reshape((4, 4))(x)
    x = layers.Bidirectional(layers.GRU(4), name="both")(x)
    model = keras.Model(inputs, layers.Dense(2, name="z")(x))
    targets, kept = find_targets(model)
    assert [target.layer for target in targets] == ["sep", *["both/gru_cell"] * 4]
    assert targets[0].variable is model.get_layer("sep").pointwise_kernel
    reasons = {item.layer: item.reason for item in kept}
    assert reasons["dw"].startswith("depthwise")
    assert reasons["frozen"].startswith("frozen")
    assert {"a", "z", "ln"} <= set(reasons)
    roles = {target.role for target in find_targets(model, include=("biases", "depthwise"))[0]}
    assert roles == {"kernels", "biases", "depthwise"}
    assert find_targets(model, include=("ends",))[0][0].layer == "a"


class Own(layers.Layer):
    """A custom layer that says what can be pruned, as tfmot's `PrunableLayer` does."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(shape[-1], 6), name="table")
        self.gain = self.add_weight(shape=(6,), name="gain", initializer="ones")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.table) * self.gain

    def get_prunable_weights(self) -> list[Any]:
        return [self.table]


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.own, self.two = layers.Dense(8, name="one"), Own(name="own"), layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.two(self.own(self.one(x)))


def test_subclassed_models_and_custom_layers() -> None:
    model = Subclassed()
    model(np.zeros((1, 4), np.float32))
    report = WeightPruner(WeightOptions(sparsity=0.5)).once(model)
    assert [row.layer for row in report.pruned] == ["own"]
    assert (model.own.table.numpy() == 0).mean() == 0.5
    assert (model.own.gain.numpy() == 1).all()
