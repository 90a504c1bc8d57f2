"""Layers that their configs do not make again: copied as they are wherever a model is copied."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress import export
from compress.core.errors import InputError
from compress.model.copies import convert_to_float32, copy_model
from compress.model.io import save_model
from compress.model.rebuild import find_rebuild_failure
from compress.model.recording import record_program
from compress.plan import WeightOptions
from compress.prune.channels import prune_channels, register_rule
from compress.prune.channels.rules.kernels import propagate_dense
from compress.prune.weights import prune_weights
from tests.compress.prune.channels.law import compare, outputs_of, randomize, zeroed

HALF: dict[str, Any] = {"cost": lambda kept, _: kept.sum(-1), "share": 0.5, "scope": "layer"}
"""Half of the channels of each group are kept."""


class Table:
    """What no config can hold: an object with an array, a layer and a way back."""

    def __init__(self, width: int) -> None:
        self.scale = np.linspace(0.5, 1.5, width).astype("float32")
        self.mixer = layers.Dense(width, name="mixer")
        self.names = {"a": [self.mixer], "b": (1, "two")}


class Patches(layers.Layer):
    """Owns a weight, holds objects, layers in containers and a closure over one of them."""

    def __init__(self, table: Table, width: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.table, self.width = table, width
        self.stack = [layers.Dense(width, name="one"), layers.Dropout(0.5, seed=1)]
        self.finish = lambda x: self.stack[0](x)

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(shape[-1],), name="token", initializer="ones")
        self.stack[0].build(shape)
        self.table.mixer.build((*shape[:-1], self.width))

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.stack[1](self.finish(x + self.token), training=training)
        return self.table.mixer(x) * self.table.scale

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "positions": 7}


class Forgetful(layers.Layer):
    """Its config makes a layer, but another one."""

    def __init__(self, gain: float = 1.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.gain = gain

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(shape[-1],), name="bias", initializer="zeros")

    def call(self, x: Any) -> Any:
        return self.gain * x + self.bias

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


class OwnDense(layers.Dense):
    """A layer with a rule, and without a way back from its config."""

    def __init__(self, table: object, units: int, **settings: Any) -> None:
        super().__init__(units, **settings)
        self.table = table


class OwnReLU(layers.ReLU):
    """Nothing of it depends on the number of channels."""

    def __init__(self, table: object, **settings: Any) -> None:
        super().__init__(**settings)
        self.table = table


def model(seed: int = 0, shared: bool = False) -> Any:
    """All of them, some in a nested model; `first` and `last` can be thinned."""
    keras.utils.set_random_seed(seed)
    inside = keras.Input((6, 16))
    y = Patches(Table(16), 16, name="patches")(inside)
    y = layers.Dense(32, activation="relu", name="first")(y)
    nested = keras.Model(inside, layers.Dense(16, name="back")(y), name="nested")
    inputs = keras.Input((6, 16), name="tokens")
    x = nested(inputs)
    if shared:
        x = nested(x)
    x = Forgetful(3.0, name="forgetful")(x)
    x = layers.Dense(32, name="last")(x)
    x = OwnReLU(object(), name="relu")(x)
    x = OwnDense(object(), 24, name="own")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    made = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x), name="m")
    randomize(made, np.random.default_rng(seed))
    return made


def batch() -> Any:
    return np.random.default_rng(1).normal(size=(4, 6, 16)).astype(np.float32)


def check_copy(original: Any, copied: Any) -> None:
    """Equal outputs, names and weights; nothing in common."""
    compare(outputs_of(original, batch()), outputs_of(copied, batch()))
    assert [layer.name for layer in copied.layers] == [layer.name for layer in original.layers]
    assert [w.path for w in copied.weights] == [w.path for w in original.weights]
    for one, two in zip(original.weights, copied.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    before = outputs_of(original, batch())[0]
    for weight in copied.weights:
        weight.assign(weight.numpy() * 0.5 + 0.1)
    np.testing.assert_array_equal(outputs_of(original, batch())[0], before)
    assert not np.allclose(outputs_of(copied, batch())[0], before, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_a_copy_of_a_model(shared: bool) -> None:
    original = model(shared=shared)
    check_copy(original, copy_model(original))
    patches = copy_model(original).get_layer("nested").get_layer("patches")
    old = original.get_layer("nested").get_layer("patches")
    assert patches.table is not old.table
    assert patches.table.names["a"][0] is patches.table.mixer is not old.table.mixer
    assert patches.token is not old.token
    assert len(patches.trainable_weights) == len(old.trainable_weights) == 3


def test_a_sequential_model_of_them() -> None:
    original = keras.Sequential(
        [keras.Input((6, 16)), Patches(Table(8), 8, name="patches"), Forgetful(2.0, name="f"),
         layers.GlobalMaxPooling1D(), layers.Dense(3)]
    )  # fmt: skip
    randomize(original, np.random.default_rng(0))
    check_copy(original, copy_model(original))


def test_layers_that_share_a_layer_share_it_in_the_copy() -> None:
    """One layer in the graph, held by another one too, whichever comes first."""

    class Tied(layers.Layer):
        def __init__(self, other: Any, **settings: Any) -> None:
            super().__init__(**settings)
            self.other = other

        def build(self, shape: Any) -> None:
            self.gain = self.add_weight(shape=(), name="gain", initializer="ones")

        def call(self, x: Any) -> Any:
            return self.gain * self.other(x)

    for order in (0, 1):
        dense = layers.Dense(8, name="both")
        steps = [dense, Tied(dense, name="tied")]
        x = inputs = keras.Input((8,))
        for step in steps[:: 1 - 2 * order]:
            x = step(x)
        x = layers.Dense(16, name="hidden")(x)
        original = keras.Model(inputs, layers.Dense(2, name="head")(x))
        copied = copy_model(original)
        assert copied.get_layer("tied").other is copied.get_layer("both")
        assert len(copied.weights) == len(original.weights) == 7
        result = prune_channels(original, **HALF)
        assert [(row.name, row.kept) for row in result.report.groups] == [("hidden", 8)]
        assert result.model.get_layer("tied").other is result.model.get_layer("both")


def test_float32_of_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        original = model()
    finally:
        keras.config.set_dtype_policy("float32")
    plain = convert_to_float32(original)
    assert {layer.compute_dtype for layer in plain._flatten_layers()} == {"float32"}
    assert plain.get_layer("nested").get_layer("patches").table.mixer.compute_dtype == "float32"
    assert {layer.compute_dtype for layer in original.layers[2:]} >= {"float16"}
    for one, two in zip(original.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    np.testing.assert_allclose(
        outputs_of(plain, batch())[0], outputs_of(original, batch())[0], atol=0.02
    )


def test_float32_of_constants_in_double_precision(tmp_path: Path) -> None:
    given = keras.Input((5,))
    inner = keras.Model(given, (given - np.float64(0.3)) / np.linspace(1.0, 2.0, 5), name="inner")
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4)(inner(inputs)) / np.sqrt(8.0)
    original = keras.Model(inputs, keras.layers.Dense(2)(x))
    assert str(x.dtype) == "float64"
    plain = convert_to_float32(original)
    tensors = [t for node in record_program(plain).walk() for t in (*node.inputs, *node.outputs)]
    assert {str(tensor.dtype) for tensor in tensors} == {"float32"}
    rows = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    first, second = (layer.get_weights() for layer in original.layers if layer.weights)
    hidden = ((rows - 0.3) / np.linspace(1.0, 2.0, 5)) @ first[0] + first[1]
    wanted = hidden / np.sqrt(8.0) @ second[0] + second[1]
    np.testing.assert_allclose(plain(rows), wanted, rtol=1e-5, atol=1e-6)
    assert convert_to_float32(plain) is plain
    (file,) = export(original, tmp_path / "m.tflite", data=rows)  # no file has doubles
    assert file.agreement > 0.999


@pytest.mark.parametrize("shared", [False, True])
def test_channels_around_them_are_pruned(shared: bool) -> None:
    original = model(shared=shared)
    result = prune_channels(original, **HALF, round_to=1)
    kept = {row.name: (row.kept, row.total) for row in result.report.groups}
    # "own" would be another layer with fewer units or inputs: both are held, and so is "last"
    assert kept == {"first": (16, 32)}
    held = [row for row in result.report.frozen if "from its config" in row.reason]
    assert {row.layer for row in held} == {"own"}
    assert {name for row in held for name in row.made_by} == {"last", "own"}
    for row in held:
        assert "layer 'own' (OwnDense) cannot be rebuilt from its config: TypeError" in row.reason
    notes = [note for note in result.report.notes if "was copied as it is" in note]
    assert [note.split("'")[1] for note in notes] == ["patches", "forgetful", "relu", "own"]
    assert "a .keras file of it cannot be loaded" in notes[0]
    assert "get_config() loses 'gain': 3.0 becomes 1.0" in notes[1]
    small = outputs_of(result.model, batch())
    assert [layer.name for layer in result.model.layers] == [x.name for x in original.layers]
    for weight in original.weights:
        weight.assign(zeroed(weight.numpy(), result.kept[weight.path]))
    compare(outputs_of(original, batch()), small)


def test_what_passes_channels_on_holds_none() -> None:
    """A layer without weights may be copied whatever the number of channels."""
    x = inputs = keras.Input((16,))
    x = OwnReLU(object(), name="relu")(layers.Dense(32, name="before")(x))
    original = keras.Model(inputs, layers.Dense(3, name="head")(x))
    randomize(original, np.random.default_rng(0))
    result = prune_channels(original, **HALF, round_to=1)
    assert [(row.name, row.kept) for row in result.report.groups] == [("before", 16)]
    x = batch()[:, 0]
    small = outputs_of(result.model, x)
    for weight in original.weights:
        weight.assign(zeroed(weight.numpy(), result.kept[weight.path]))
    compare(outputs_of(original, x), small)


def test_a_rule_of_ones_own_does_not_help_a_layer_that_cannot_be_made() -> None:
    class Taught(OwnDense):
        def call(self, x: Any) -> Any:
            return super().call(x) * 1.0

    register_rule(Taught, propagate_dense)
    inputs = keras.Input((16,))
    x = Taught(object(), 16, name="taught")(layers.Dense(16, name="before")(inputs))
    report = prune_channels(
        keras.Model(inputs, layers.Dense(3)(layers.Dense(16, name="after")(x))), **HALF
    ).report
    assert [row.name for row in report.groups] == ["after"]


class Late(layers.Layer):
    """Comes of its config, and fails where it is built."""

    def __init__(self, axis: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._axis = axis

    def build(self, shape: Any) -> None:
        if self._axis is None:
            raise ValueError("axis must be given")
        self.bias = self.add_weight(shape=(shape[self._axis],), name="bias")

    def call(self, x: Any) -> Any:
        return x + self.bias

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


def test_a_config_that_fails_only_when_it_is_built() -> None:
    inputs = keras.Input((6, 16))
    x = Late(-1, name="late")(layers.Dense(16, name="before")(inputs))
    x = layers.Dense(32, name="hidden")(layers.GlobalAveragePooling1D()(x))
    original = keras.Model(inputs, layers.Dense(3, name="head")(x))
    randomize(original, np.random.default_rng(0))
    check_copy(original, copy_model(original))
    result = prune_channels(original, **HALF, round_to=1)
    assert [(row.name, row.kept) for row in result.report.groups] == [("hidden", 16)]
    assert any("'late' (Late) was copied as it is" in note for note in result.report.notes)
    small = outputs_of(result.model, batch())
    for weight in original.weights:
        weight.assign(zeroed(weight.numpy(), result.kept[weight.path]))
    compare(outputs_of(original, batch()), small)


def test_weights_are_pruned_in_a_copy() -> None:
    original = model()
    result = prune_weights(original, options=WeightOptions(sparsity=0.5, scope="layer"))
    zeros = result.model.get_layer("nested").get_layer("back").kernel.numpy() == 0
    assert zeros.mean() == 0.5
    assert not (original.get_layer("nested").get_layer("back").kernel.numpy() == 0).any()


def test_an_export_is_of_the_same_model(tmp_path: Path) -> None:
    from compress.exporting.litert import export_litert
    from compress.measure import file_agreement
    from compress.measure.runtimes import prepare_session

    original = prune_channels(model(), **HALF).model
    export_litert(original, tmp_path / "m.tflite")
    (got,) = file_agreement.compute_outputs(prepare_session(tmp_path / "m.tflite"), [batch()[:1]])
    np.testing.assert_allclose(got, outputs_of(original, batch()[:1])[0], atol=1e-5)


def test_saving_says_what_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"'patches' \(Patches\) must be rebuildable .*'positions"):
        save_model(model(), tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())
    inputs = keras.Input((16,))
    lossy = keras.Model(inputs, layers.Dense(3)(Forgetful(3.0, name="forgetful")(inputs)))
    with caplog.at_level(logging.WARNING, "paretune"):
        save_model(lossy, tmp_path / "m.keras")
    assert "will come back from the file as another one: get_config() loses 'gain'" in caplog.text


def test_what_can_be_rebuilt_is() -> None:
    class Good(layers.Layer):
        def __init__(self, gain: float = 1.0, **settings: Any) -> None:
            super().__init__(**settings)
            self.gain = gain

        def call(self, x: Any) -> Any:
            return self.gain * x

    assert find_rebuild_failure(Good(2.0)) == ""
    assert find_rebuild_failure(layers.Dense(3)) == ""
    assert "TypeError" in find_rebuild_failure(OwnDense(object(), 3))


def test_what_cannot_be_copied_is_named() -> None:
    class Holding(Forgetful):
        def __init__(self, count: object, **settings: Any) -> None:
            super().__init__(2.0, **settings)
            self.stream = (number for number in range(3))

    inputs = keras.Input((4,))
    original = keras.Model(inputs, Holding(object(), name="holding")(inputs))
    with pytest.raises(InputError, match=r"'holding' \(Holding\) must be .*generator"):
        copy_model(original)


class Stage(layers.Layer):
    """As KerasHub's: a layer of layers, of which one that does nothing is given a policy."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.kernel = layers.Dense(16, name="kernel", dtype=self.dtype_policy)
        self.rest = layers.Identity(name="rest", dtype=self.dtype_policy)

    def build(self, shape: Any) -> None:
        self.kernel.build(shape)

    def call(self, x: Any) -> Any:
        return self.rest(self.kernel(x))


def test_layers_for_which_keras_makes_no_config_are_saved(tmp_path: Path) -> None:
    inputs = keras.Input((6,))
    stage = Stage(name="stage")
    with pytest.raises(NotImplementedError):
        stage.rest.get_config()
    model = keras.Model(inputs, layers.Dense(2)(stage(inputs)))
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    pruned = prune_channels(model, macs=0.5).model
    copied = convert_to_float32(copy_model(pruned))
    save_model(copied, tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    assert [layer.units for layer in again.layers if hasattr(layer, "units")] == [8, 2]
    assert any(type(layer) is layers.Identity for layer in again.layers)
    np.testing.assert_allclose(outputs_of(again, x), outputs_of(pruned, x))
