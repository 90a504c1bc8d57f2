"""LSTM, GRU and SimpleRNN: rows x matrix + bias are the gates, and states are made good."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from compress.prune.channels import prune_channels
from compress.reconstruction import repair
from compress.reconstruction.kernel_parts import build_parts
from compress.reconstruction.tensor_store import Store

L = keras.layers
Numbers = npt.NDArray[np.float64]
LAYERS = {
    "lstm": (L.LSTM, {}),
    "lstm without bias": (L.LSTM, {"use_bias": False}),
    "simple": (L.SimpleRNN, {}),
    "gru after": (L.GRU, {"reset_after": True}),
    "gru before": (L.GRU, {"reset_after": False}),
    "gru backwards": (L.GRU, {"reset_after": True, "go_backwards": True}),
    "lstm backwards": (L.LSTM, {"go_backwards": True}),
}  # fmt: skip


def filled(layer: Any, seed: int, scale: float = 0.6) -> None:
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(0, scale, weight.shape))


def sigmoid(x: Numbers) -> Numbers:
    return 1 / (1 + np.exp(-x))


def gates_of(layer: Any, x: Numbers, mask: npt.NDArray[np.bool_] | None) -> tuple[Numbers, ...]:
    """Steps through a layer in float64: (examples, steps, gates), states before and after."""
    cell, units = layer.cell, layer.cell.units
    w, u = cell.kernel.numpy().astype(float), cell.recurrent_kernel.numpy().astype(float)
    bias = np.zeros(w.shape[1]) if not cell.use_bias else cell.bias.numpy().astype(float)
    first, second = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    h, c = np.zeros((len(x), units)), np.zeros((len(x), units))
    steps = range(x.shape[1])
    made = np.zeros((*x.shape[:2], w.shape[1]))
    before, after = (np.zeros((*x.shape[:2], units)) for _ in range(2))
    for t in reversed(steps) if layer.go_backwards else steps:
        before[:, t] = h
        a, b = x[:, t] @ w + first, h @ u + second
        if type(layer).__name__ == "LSTM":
            i, f, g, o = np.split(a + b, 4, 1)
            new_c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            new_h = sigmoid(o) * np.tanh(new_c)
            made[:, t] = a + b
        elif type(layer).__name__ == "GRU":
            (za, ra, ga), (zb, rb, gb) = np.split(a, 3, 1), np.split(b, 3, 1)
            z, r = sigmoid(za + zb), sigmoid(ra + rb)
            state = r * gb if layer.reset_after else (r * h) @ u[:, 2 * units :]
            new_c, new_h = c, z * h + (1 - z) * np.tanh(ga + state)
            made[:, t] = np.concatenate([za + zb, ra + rb, ga + state], 1)
        else:
            new_c, new_h = c, np.tanh(a + b)
            made[:, t] = a + b
        inside = np.ones((len(x), 1), bool) if mask is None else mask[:, t, None]
        h, c = np.where(inside, new_h, h), np.where(inside, new_c, c)
        after[:, t] = h
    return made, before, after


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_kernels_are_the_gates(name: str) -> None:
    """Of a layer towards itself: rows x matrix + bias = targets = the gates in NumPy."""
    kind, settings = LAYERS[name]
    layer = kind(5, return_sequences=True, **settings)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 4)).astype(np.float32)
    mask = np.ones((3, 6), bool)
    mask[1, 4:], mask[2, :2] = False, False
    layer.build(x.shape)
    filled(layer, 1)
    given = Store().keep(keras.ops.convert_to_tensor(x))
    given.mask = keras.ops.convert_to_tensor(mask)
    made, before, after = gates_of(layer, x.astype(float), mask)
    # the oracle itself, against the layer
    y = np.asarray(layer(x, mask=given.mask))
    wanted = after[:, ::-1] if layer.go_backwards else after
    np.testing.assert_allclose(y, wanted, atol=1e-5)

    part = build_parts(layer, 3)[0][-1]
    places = np.repeat(np.arange(3), 6), np.tile(np.arange(6), 3)
    rows, targets = part.build_pairs(part, given, given, places, lambda *_: None)
    kernel = part.read_weights()
    found = (rows @ kernel).transpose(1, 0, 2).reshape(18, -1) + part.read_bias()
    np.testing.assert_allclose(found, targets, atol=1e-5)
    np.testing.assert_allclose(rows[0][:, 4:], before.reshape(18, -1), atol=1e-5)
    flat = made.reshape(18, -1)
    if name in ("gru after", "gru backwards"):
        # the state's part of the candidate belongs to the other part
        candidate = build_parts(layer, 3)[0][0]
        state, product = candidate.build_pairs(candidate, given, given, places, lambda *_: None)
        np.testing.assert_allclose(
            (state @ candidate.read_weights())[0] + candidate.read_bias(), product, atol=1e-5
        )
        reset = sigmoid(flat[:, 5:10])
        flat = np.concatenate([flat[:, :10], flat[:, 10:] - reset * product], 1)
    np.testing.assert_allclose(targets, flat, atol=1e-5)
    values = [weight.numpy() for weight in layer.weights]
    for one in build_parts(layer, 3)[0]:
        one.assign(one.read_weights())
        if one.bias is not None:
            one.set_bias(one.read_bias())
    for weight, value in zip(layer.weights, values, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, atol=1e-6)


def doubled(kind: Any, settings: dict[str, Any], head: bool = True) -> tuple[Any, Any, Any]:
    """Builds a net of which units 4 to 7 repeat units 0 to 3, and the net without them.

    Returns:
        The net, the smaller one as slicing leaves it, and the kept indices by path.
    """
    units = 8

    def net(count: int) -> Any:
        x = keras.Input((6, 3))
        y = kind(count, return_sequences=True, name="rnn", **settings)(x)
        return keras.Model(x, L.Dense(2, name="head")(y))

    dense, small = net(units), net(units // 2)
    filled(dense, 2)
    layer = dense.get_layer("rnn")
    values = [weight.numpy() for weight in layer.weights]
    gates = values[0].shape[1] // units
    twin = np.concatenate([np.arange(4) + units * gate for gate in range(gates)])
    kept: dict[str, Any] = {}
    for weight, value in zip(layer.weights, values, strict=True):
        value[..., twin + 4] = value[..., twin]
        weight.assign(value)
        axes: list[Any] = [None] * (value.ndim - 1) + [twin]
        if weight is layer.cell.recurrent_kernel:
            axes[0] = np.arange(4)
        kept[weight.path] = tuple(axes)
    head_layer = dense.get_layer("head")
    kept[head_layer.kernel.path] = (np.arange(4), None)
    for own, theirs in zip(small.weights, dense.weights, strict=True):
        value = theirs.numpy()
        for axis, indices in enumerate(kept.get(theirs.path, ())):
            if indices is not None:
                value = np.take(value, indices, axis)
        own.assign(value)
    return dense, small, kept


@pytest.mark.parametrize("name", LAYERS)
def test_units_that_repeat_others_are_made_good(name: str) -> None:
    kind, settings = LAYERS[name]
    dense, small, kept = doubled(kind, settings)
    x = np.random.default_rng(3).normal(size=(300, 6, 3)).astype(np.float32)
    wanted = dense.predict(x, verbose=0)
    broken = np.abs(small.predict(x, verbose=0) - wanted).max()
    report = repair(small, dense, x, kept=kept)
    found = np.abs(small.predict(x, verbose=0) - wanted).max()
    assert broken > 0.1
    assert found < 5e-4
    assert all(layer.state == "repaired" for layer in report.layers)


def test_bidirectional_is_opened() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((7, 4))
    y = L.Bidirectional(L.LSTM(12, return_sequences=True), name="both")(x)
    y = L.Bidirectional(L.GRU(10), name="ends")(y)
    model = keras.Model(x, L.Dense(3)(y))
    filled(model, 4, 0.4)
    data = np.random.default_rng(5).normal(size=(200, 7, 4)).astype(np.float32)
    small = prune_channels(model, macs=0.4, scope="layer", data=data, repair=False)
    report = repair(small.model, model, data, kept=small.kept)
    states = {layer.name: layer.state for layer in report.layers}
    assert sum(layer.kind in ("LSTM", "GRU") for layer in report.layers) == 6
    assert "left" not in states.values()
    assert report.output_error[0][1] < 0.7 * report.output_error[0][0]


def test_padding_is_not_looked_at() -> None:
    """Garbage in padded steps changes nothing; rows are those of the mask."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 3))
    y = L.LSTM(10, name="rnn")(L.Masking(-9.0)(x))
    model = keras.Model(x, L.Dense(2)(y))
    filled(model, 4, 0.5)
    rng = np.random.default_rng(5)
    data = rng.normal(size=(120, 8, 3)).astype(np.float32)
    lengths = rng.integers(3, 9, len(data))
    data[np.arange(8) >= lengths[:, None]] = -9.0
    small = prune_channels(model, macs=0.5, scope="layer", data=data, repair=False)
    report = repair(small.model, model, data, kept=small.kept)
    row = next(layer for layer in report.layers if layer.name == "rnn")
    assert row.rows == lengths.sum()
    assert report.output_error[0][1] < report.output_error[0][0]


def test_masks_go_into_both_directions() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    y = L.Bidirectional(L.LSTM(8), name="both")(L.Embedding(9, 4, mask_zero=True)(x))
    model = keras.Model(x, L.Dense(2)(y))
    filled(model, 4, 0.5)
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 7, 100)
    data = np.where(np.arange(6) < lengths[:, None], rng.integers(1, 9, (100, 6)), 0)
    small = prune_channels(model, macs=0.5, scope="layer", data=data, repair=False)
    report = repair(small.model, model, data, kept=small.kept)
    rows = [layer.rows for layer in report.layers if layer.kind == "LSTM"]
    assert rows == [lengths.sum()] * 2
    assert report.output_error[0][1] < report.output_error[0][0]


def test_what_is_left_is_named() -> None:
    @keras.saving.register_keras_serializable("test_recurrent")
    class Wrapped(keras.layers.Layer):
        def __init__(self, **others: Any) -> None:
            super().__init__(**others)
            self.supports_masking = True
            self.inner = L.LSTM(4)

        def compute_mask(self, *_: Any) -> None:
            return None

        def build(self, shape: Any) -> None:
            self.inner.build(shape)

        def call(self, x: Any) -> Any:
            return self.inner(x)

    keras.utils.set_random_seed(0)
    x = keras.Input((5,))
    y = Wrapped(name="wrapped")(L.Embedding(9, 3, mask_zero=True)(x))
    model = keras.Model(x, L.Dense(2)(y))
    data = np.random.default_rng(0).integers(0, 9, (40, 5))
    report = repair(keras.models.clone_model(model), model, data)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["wrapped"] == "it is made of layers and given a mask that its call does not take"


def test_sequences_with_states_are_left() -> None:
    keras.utils.set_random_seed(0)
    x, state = keras.Input((5, 3)), keras.Input((6,))
    y = L.SimpleRNN(6, name="rnn")(x, initial_state=[state])
    model = keras.Model([x, state], L.Dense(2)(y))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(40, 5, 3)), rng.normal(size=(40, 6))]
    report = repair(keras.models.clone_model(model), model, data)
    reasons = {layer.name: layer.reason for layer in report.layers}
    assert reasons["rnn"] == "it is given an initial state"
    stateful = L.LSTM(3, stateful=True)
    stateful.build((2, 5, 3))
    assert build_parts(stateful, 3) == ([], "it carries its state from batch to batch")
