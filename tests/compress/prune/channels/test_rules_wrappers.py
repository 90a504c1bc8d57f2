"""The law for layers around layers and around models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.compress.prune.channels.law import SEEDS, check
from tests.compress.prune.channels.nets import HEAD, between, check_macs, headed, macs_of


@pytest.mark.parametrize(
    ("merge", "states", "sequences"),
    [
        pytest.param(merge, states, sequences, marks=[] if is_default else [pytest.mark.matrix])
        for place, merge in enumerate(("concat", "sum", "ave", "mul", None))
        for states in (False, True)
        for sequences in (False, True)
        # by default every way of merging in two of its four forms, and the usual one in all
        for is_default in [merge == "concat" or (states + sequences + place) % 2 == 0]
    ],
)
def test_bidirectional(merge: str | None, states: bool, sequences: bool) -> None:
    for seed, kind in enumerate((layers.LSTM, layers.GRU)):
        inner = kind(5, return_sequences=sequences, return_state=states)
        model = between(layers.Bidirectional(inner, merge_mode=merge, name="both"))
        coupling, sliced, mask = check(model, seed=seed)
        assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
        assert [len(group.units) for group in coupling.groups] == [6, 5]
        check_macs(coupling, sliced, mask)


def test_states_of_a_bidirectional_encoder() -> None:
    source, target = keras.Input((4, 3)), keras.Input((5, 2))
    encoder = layers.Bidirectional(layers.LSTM(4, return_state=True), name="encoder")
    x, *states = encoder(source)
    decoder = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="decoder")
    model = headed([source, target], [x, decoder(target, initial_state=states)])
    coupling, _, _ = check(model)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 1


def frames() -> Any:
    """A small network for one picture."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 4)),
            layers.Conv2D(5, 3, activation="relu", name="inner_conv"),
            layers.BatchNormalization(name="inner_bn"),
            layers.GlobalAveragePooling2D(),
        ],
        name="frames",
    )


def normalized() -> Any:
    """A network whose statistics run over channels."""
    inputs = keras.Input((4,))
    x = layers.LayerNormalization(name="inner_ln")(layers.Dense(5, name="inner")(inputs))
    return keras.Model(inputs, x, name="normalized")


def attending() -> Any:
    """A network with a weight that surgery scales."""
    inputs = keras.Input((4, 4))
    x = layers.MultiHeadAttention(2, 5, name="inner_heads")(inputs, inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x), name="attending")


def branches() -> Any:
    """A small functional network with a residual."""
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(5, 1, name="inner_one")(inputs)
    x = layers.Add()([x, layers.Conv2D(5, 3, padding="same", name="inner_two")(x)])
    return keras.Model(inputs, layers.Flatten()(x), name="branches")


PICTURES = (3, 6, 6, 2)
DISTRIBUTED: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "dense": (lambda: layers.Dense(5, activation="relu"), (4, 3)),
    "conv2d": (lambda: layers.Conv2D(5, 3), PICTURES),
    "normalization": (lambda: layers.LayerNormalization(), (4, 3)),
    "pooling": (lambda: layers.GlobalAveragePooling2D(), PICTURES),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), (2, 4, 3)),
    "sequential": (frames, PICTURES),
    "functional": (branches, PICTURES),
    "functional over channels": (normalized, (4, 3)),
    "sequential in a sequential": (
        lambda: keras.Sequential([keras.Input((6, 6, 4)), frames(), layers.Dense(4)]),
        PICTURES,
    ),
    "attention over frames": (attending, (3, 4, 5)),
}


@pytest.mark.parametrize("name", DISTRIBUTED)
@pytest.mark.parametrize("seed", SEEDS)
def test_time_distributed(name: str, seed: int) -> None:
    make, shape = DISTRIBUTED[name]
    inputs = keras.Input(shape)
    x = layers.Dense(4, name="before")(inputs)
    x = layers.TimeDistributed(make(), name="each")(x)
    x = layers.TimeDistributed(layers.Flatten())(x) if len(x.shape) > 3 else x
    x = layers.LSTM(5, name="lstm")(x)
    coupling, sliced, mask = check(keras.Model(inputs, layers.Dense(3, name="head")(x)), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert not coupling.graph.unknown
    assert len(coupling.groups) >= (2 if name in ("pooling", "normalization") else 3)
    check_macs(coupling, sliced, mask)


def test_time_distributed_macs() -> None:
    inputs = keras.Input(PICTURES)
    x = layers.TimeDistributed(layers.Conv2D(5, 3, name="conv"), name="each")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert macs_of(model, "each") == 3 * (4 * 4 * 9 * 2 * 5)
    x = layers.TimeDistributed(frames(), name="each")(layers.Dense(4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    assert macs_of(model, "inner_conv") == 3 * (4 * 4 * 9 * 4 * 5)


def test_time_distributed_called_twice() -> None:
    first, second = keras.Input((4, 3)), keras.Input((5, 3))
    shared = layers.TimeDistributed(layers.Dense(5, name="inner"), name="shared")
    dense = layers.Dense(6)
    model = headed([first, second], [shared(dense(first)), shared(dense(second))])
    coupling, _, _ = check(model)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD


@pytest.mark.filterwarnings("ignore:Layer 'flatten")
def test_time_distributed_with_and_without_a_mask() -> None:
    inputs = keras.Input((6,), dtype="int32")
    shared = layers.TimeDistributed(layers.Dense(5), name="shared")
    x = [layers.Embedding(9, 7, mask_zero=zero)(inputs) for zero in (True, False)]
    coupling, _, _ = check(headed(inputs, [layers.GRU(4)(shared(part)) for part in x]))
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 4


def test_saved_and_loaded(tmp_path: Any) -> None:
    inputs = keras.Input((*PICTURES[:3], 4))
    x = layers.TimeDistributed(frames())(inputs)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.RNN([layers.GRUCell(5), layers.LSTMCell(4)])(x)
    _, sliced, _ = check(keras.Model(inputs, layers.Dense(3)(x)))
    sliced.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    data = np.random.default_rng(0).normal(size=(2, *PICTURES[:3], 4)).astype("float32")
    np.testing.assert_allclose(loaded(data), sliced(data), atol=1e-6)
