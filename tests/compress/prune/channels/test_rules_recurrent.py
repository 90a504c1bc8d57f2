"""The law for recurrent layers and their cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.prune.channels.analysis import analyze_coupling
from tests.compress.prune.channels.law import SEEDS, check
from tests.compress.prune.channels.nets import HEAD, between, check_macs, headed, macs_of

SEQUENCE = (4, 3)
CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "lstm": (lambda: layers.LSTM(5), SEQUENCE),
    "lstm sequences": (lambda: layers.LSTM(5, return_sequences=True), SEQUENCE),
    "lstm states": (lambda: layers.LSTM(5, return_sequences=True, return_state=True), SEQUENCE),
    "lstm backwards, no bias": (
        lambda: layers.LSTM(5, go_backwards=True, use_bias=False, return_sequences=True),
        SEQUENCE,
    ),
    "lstm unrolled, relu": (lambda: layers.LSTM(5, unroll=True, activation="relu"), SEQUENCE),
    "lstm whose silence is not zero": (lambda: layers.LSTM(5, activation="sigmoid"), SEQUENCE),
    "lstm dropout": (lambda: layers.LSTM(5, dropout=0.2, recurrent_dropout=0.3), SEQUENCE),
    "gru": (lambda: layers.GRU(5), SEQUENCE),
    "gru reset before": (
        lambda: layers.GRU(5, reset_after=False, return_sequences=True, return_state=True),
        SEQUENCE,
    ),
    "gru no bias, dropout": (lambda: layers.GRU(5, use_bias=False, dropout=0.2), SEQUENCE),
    "simple": (lambda: layers.SimpleRNN(5, return_state=True), SEQUENCE),
    "simple sigmoid": (lambda: layers.SimpleRNN(5, activation="sigmoid"), SEQUENCE),
    "rnn of lstm cell": (lambda: layers.RNN(layers.LSTMCell(5), return_sequences=True), SEQUENCE),
    "rnn of gru cell": (lambda: layers.RNN(layers.GRUCell(5, reset_after=False)), SEQUENCE),
    "rnn of a list": (
        lambda: layers.RNN(
            [layers.LSTMCell(5), layers.GRUCell(4), layers.SimpleRNNCell(6)], return_state=True
        ),
        SEQUENCE,
    ),
    "rnn of a stack": (
        lambda: layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(5), layers.GRUCell(4)]), return_sequences=True
        ),
        SEQUENCE,
    ),
    "rnn of a stack of one": (
        lambda: layers.RNN(layers.StackedRNNCells([layers.GRUCell(5)]), return_sequences=True),
        SEQUENCE,
    ),
    "convlstm1d": (lambda: layers.ConvLSTM1D(4, 3, return_sequences=True), (3, 6, 2)),
    "convlstm2d": (lambda: layers.ConvLSTM2D(4, 2, strides=2, padding="same"), (3, 4, 4, 2)),
    "convlstm2d states": (
        lambda: layers.ConvLSTM2D(4, 3, return_state=True, recurrent_activation="hard_sigmoid"),
        (3, 5, 5, 2),
    ),
    "convlstm3d": (lambda: layers.ConvLSTM3D(3, 2), (2, 3, 3, 3, 2)),
    "bidirectional convlstm1d": (
        lambda: layers.Bidirectional(layers.ConvLSTM1D(4, 3, return_sequences=True)),
        (3, 6, 2),
    ),
    "bidirectional of a stack": (
        lambda: layers.Bidirectional(
            layers.RNN([layers.LSTMCell(4), layers.GRUCell(5)], return_state=True)
        ),
        SEQUENCE,
    ),
    "bidirectional, own backward layer": (
        lambda: layers.Bidirectional(
            layers.LSTM(5, return_sequences=True),
            backward_layer=layers.GRU(5, return_sequences=True, go_backwards=True),
        ),
        SEQUENCE,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_law(name: str, seed: int) -> None:
    make, shape = CASES[name]
    coupling, sliced, mask = check(between(make(), shape), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert not coupling.graph.unknown
    assert len(coupling.groups) >= 2
    check_macs(coupling, sliced, mask)


def test_units_are_exact_slices() -> None:
    model = between(layers.LSTM(5, name="lstm"))
    coupling, sliced, mask = check(model, keep=0.6)
    rows, units = (
        np.flatnonzero(mask[coupling.unit_of_slot[binding.ids]])
        for binding in coupling.bindings
        if binding.layer == "lstm" and binding.variable.path.endswith("/kernel")
    )
    assert len(units) == 4 * 3
    assert np.array_equal(units[3:6], units[:3] + 5)
    old, new = model.get_layer("lstm").cell, sliced.get_layer("lstm").cell
    assert np.array_equal(new.kernel.numpy(), old.kernel.numpy()[np.ix_(rows, units)])
    recurrent = old.recurrent_kernel.numpy()[np.ix_(units[:3], units)]
    assert np.array_equal(new.recurrent_kernel.numpy(), recurrent)
    assert np.array_equal(new.bias.numpy(), old.bias.numpy()[units])


def test_macs_count_all_steps() -> None:
    model = between(layers.LSTM(5, name="rnn"))
    assert macs_of(model, "rnn") == 4 * (6 + 5) * 4 * 5
    model = between(layers.Bidirectional(layers.GRU(5), name="rnn"))
    assert macs_of(model, "rnn") == 2 * 4 * (6 + 5) * 3 * 5
    model = between(layers.ConvLSTM2D(4, 3, name="rnn"), (3, 6, 6, 2))
    assert macs_of(model, "rnn") == 3 * (4 * 4) * 9 * (6 + 4) * 4 * 4
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, layers.Dense(3)(layers.SimpleRNN(5, name="rnn")(inputs)))
    assert macs_of(model, "rnn", (7, 3)) == 7 * (3 + 5) * 5


@pytest.mark.parametrize("seed", SEEDS)
def test_states_of_an_encoder_start_a_decoder(seed: int) -> None:
    source, target = keras.Input((4, 3)), keras.Input((5, 2))
    _, *states = layers.LSTM(6, return_state=True, name="encoder")(source)
    x = layers.LSTM(6, return_sequences=True, name="decoder")(target, initial_state=states)
    x = layers.GRU(6, name="last")(x, states[0])
    model = keras.Model([source, target], layers.Dense(3, name="head")(x))
    coupling, _, _ = check(model, seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert len(coupling.groups) == 1, "encoder and decoders share their units"


def test_a_given_state_fixes_the_units() -> None:
    inputs, state = keras.Input((4, 3)), keras.Input((5,), name="state")
    x = layers.GRU(5, name="gru")(layers.Dense(6)(inputs), initial_state=state)
    model = keras.Model([inputs, state], layers.Dense(3, name="head")(x))
    coupling, _, _ = check(model)
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert reasons == ["its initial state is fixed (model input 'state')", *HEAD]


@pytest.mark.parametrize("seed", SEEDS)
def test_shared_with_and_without_a_state(seed: int) -> None:
    first, second = keras.Input((4, 3)), keras.Input((6, 3))
    shared = layers.LSTM(5, return_state=True, name="shared")
    dense = layers.Dense(7, name="before")
    one, *states = shared(dense(first))
    two, *_ = shared(dense(second), initial_state=states)
    coupling, sliced, mask = check(headed([first, second], [one, two]), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    check_macs(coupling, sliced, mask)


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_embedding(seed: int) -> None:
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, 7, mask_zero=True, name="table")(inputs)
    x = layers.LSTM(5, return_sequences=True, name="lstm")(x)
    x = layers.Bidirectional(layers.GRU(4), name="both")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    coupling, sliced, _ = check(model, seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert [group.name for group in coupling.groups] == ["table", "lstm", "both"]
    tokens = np.array([[1, 2, 0, 0, 0, 0]])
    before = np.asarray(sliced(tokens))
    table = sliced.get_layer("table").embeddings
    table.assign(table.numpy() + np.eye(9, 1))  # only what is masked changes
    assert np.array_equal(sliced(tokens), before)


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_sequential(seed: int) -> None:
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 7, mask_zero=True),
            layers.LSTM(5),
            layers.Dense(3, name="head"),
        ]
    )
    coupling, sliced, _ = check(model, seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert [type(layer) for layer in sliced.layers] == [type(layer) for layer in model.layers]


@keras.saving.register_keras_serializable("tests")
class Custom(layers.SimpleRNNCell):
    def call(self, sequence: Any, states: Any, training: bool = False) -> Any:
        output, states = super().call(sequence, states, training)
        return keras.ops.flip(output, -1), states


def test_what_has_no_rule() -> None:
    coupling, _, _ = check(between(layers.RNN(Custom(5), name="own")), removes=False)
    assert coupling.graph.unknown == {"own": ("Custom", "no rule for this class")}
    assert not coupling.groups
    inputs = keras.Input(batch_shape=(2, 4, 3))
    x = layers.LSTM(5, stateful=True, name="lstm")(layers.Dense(6)(inputs))
    coupling = analyze_coupling(keras.Model(inputs, layers.Dense(3)(x)))
    reason = "it carries its state from batch to batch"
    assert coupling.graph.unknown == {"lstm": ("LSTM", reason)}


def test_an_activation_over_units_fixes_them() -> None:
    coupling, _, _ = check(between(layers.SimpleRNN(5, activation="softmax", name="rnn")))
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert reasons == ["activation softmax mixes units", *HEAD]


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_as_layers(seed: int) -> None:
    inputs = keras.Input((3,))
    hidden, carry = layers.Dense(5, name="h")(inputs), layers.Dense(5, name="c")(inputs)
    x, (hidden, carry) = layers.LSTMCell(5)(layers.Dense(6)(inputs), [hidden, carry])
    y, _ = layers.GRUCell(5)(x, [hidden])
    coupling, _, _ = check(headed(inputs, [y, carry]), seed=seed)
    assert [frozen.reason for frozen in coupling.list_frozen()] == HEAD
    assert [len(group.units) for group in coupling.groups] == [6, 5]


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("started", [False, True])
def test_silent_units(activation: str, started: bool) -> None:
    """A product over units needs states that stay zero."""
    inputs = keras.Input((4, 3))
    state = layers.Dense(5, activation="sigmoid", name="start")(layers.Flatten()(inputs))
    rnn = layers.SimpleRNN(5, activation=activation, return_sequences=True, name="rnn")
    x = rnn(inputs, initial_state=state if started else None)
    x = layers.Attention(name="attend")([x, x])
    coupling, _, _ = check(headed(inputs, x), removes=False)
    assert len(coupling.groups) == int(activation == "tanh" and not started)


@keras.saving.register_keras_serializable("tests")
class OwnLSTM(layers.LSTM):
    """An LSTM with a call of its own, which no rule knows."""

    def call(self, sequences: Any, **more: Any) -> Any:
        return super().call(sequences, **more)


def test_a_direction_without_a_rule_keeps_both() -> None:
    inputs = keras.Input(SEQUENCE)
    both = layers.Bidirectional(layers.LSTM(4), backward_layer=OwnLSTM(4, go_backwards=True))
    x = layers.Add()([both(inputs), layers.Dense(8)(layers.Flatten()(inputs))])
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    coupling, _, _ = check(model, removes=False)
    assert not coupling.groups
