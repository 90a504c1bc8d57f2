"""Models of users' own classes become plain graphs that answer as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress import compress_model, prune_channels
from compress.core.errors import InputError
from compress.measure import count_macs
from compress.model.io import load_model, save_model
from compress.model.ports import list_input_names, list_output_names
from compress.model.rebuild import as_graph

RNG = np.random.default_rng(0)
X = {
    "u": RNG.normal(size=(160, 8)).astype(np.float32),
    "v": RNG.normal(size=(160, 1)).astype(np.float32),
}
Y = {"p": np.tanh(X["u"][:, :3]), "q": X["v"] * X["u"][:, :2]}


class Block(layers.Layer):  # type: ignore[misc]
    """Made of layers, and of no config: only its call tells what it does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(32)

    def call(self, x: Any) -> Any:
        """Computes relu(inner(x)) + 1."""
        return keras.ops.relu(self.inner(x)) + 1


class Written(keras.Model):  # type: ignore[misc]
    """A `call` of its own, two named inputs, two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop = Block(), layers.Dropout(0.5)
        self.head, self.other = layers.Dense(3), layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        """Answers with p and q."""
        h = self.drop(self.first(x["u"]), training=training)
        return {"p": self.head(h), "q": self.other(h) * x["v"]}


class Named(keras.Model):  # type: ignore[misc]
    """A graph by its constructor, whose config nobody can read."""

    def __init__(self, *args: Any, mood: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mood = mood


@pytest.fixture(scope="module")
def written() -> Any:
    keras.utils.set_random_seed(0)
    model = Written()
    model.compile("adam", loss={"p": "mse", "q": "mae"}, loss_weights={"p": 2.0, "q": 1.0})
    model.fit(X, Y, epochs=2, verbose=0)
    return model


def test_a_traced_model_answers_as_before(written: Any, tmp_path: Path) -> None:
    graph = as_graph(written)
    assert list_input_names(graph) == ["u", "v"]
    assert list_output_names(graph) == ["p", "q"]
    expected, made = written(X), graph(X)
    for name in ("p", "q"):
        np.testing.assert_array_equal(expected[name], made[name])
    # in training too: the dropout is there
    assert (np.asarray(graph(X, training=True)["p"]) != np.asarray(made["p"])).any()
    assert graph.trainable_variables[0] is written.trainable_variables[0]
    graph.save(tmp_path / "graph.keras")  # the block, which has no config, was opened
    again = load_model(tmp_path / "graph.keras")
    np.testing.assert_allclose(again(X)["q"], expected["q"], atol=1e-6)


def test_it_is_compressed_with_what_it_was_compiled_with(written: Any, tmp_path: Path) -> None:
    result = compress_model(
        written, (X, Y), channels=0.5, finetune_epochs=0, formats=["float32"], round_to=2,
        latency_budget=0.2, out=tmp_path / "out",
    )  # fmt: skip
    # 32 * (8 + 3 + 2) multiply-accumulates at first
    assert count_macs(written).macs == 32 * 13
    assert result.report.compressed[0].artifacts
    assert count_macs(result.model).macs <= 16 * 13
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "losses are weighted as the model was compiled: p 2, q 1" in log


def test_a_class_with_a_graph_becomes_keras_own(tmp_path: Path) -> None:
    x = keras.Input((8,))
    model = Named(x, layers.Dense(3)(layers.Dense(16, activation="relu")(x)), mood="good")
    graph = as_graph(model)
    assert type(graph).__module__.startswith("keras.")
    np.testing.assert_array_equal(graph(X["u"]), model(X["u"]))
    small = prune_channels(model, macs=0.5, round_to=1)
    assert count_macs(small.model).macs == 8 * 11


def test_what_keras_makes_stays_what_it_is() -> None:
    sequential = keras.Sequential([keras.Input((8,)), layers.Dense(2)])
    x = keras.Input((8,))
    functional = keras.Model(x, layers.Dense(2)(x))
    assert as_graph(sequential) is sequential
    assert as_graph(functional) is functional


def test_two_layers_of_one_name_are_refused() -> None:
    class Twins(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = layers.Dense(4, name="same"), layers.Dense(4, name="same")

        def call(self, x: Any) -> Any:
            return self.two(self.one(x))

    model = Twins()
    model(X["u"])
    with pytest.raises(InputError, match="unique names. Received: two layers 'same'"):
        as_graph(model)


class Patches(layers.Layer):  # type: ignore[misc]
    """Puts what it has computed into its config, as some libraries do; owns a weight."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width, self.count = width, 2 * width

    def build(self, shape: Any) -> None:
        """Makes the weight."""
        self.token = self.add_weight(shape=(self.width,), name="token", initializer="ones")

    def call(self, x: Any) -> Any:
        """Adds the weight."""
        return x + self.token

    def get_config(self) -> Any:
        """Tells more than the constructor takes."""
        return {**super().get_config(), "width": self.width, "count": self.count}


class Backbone(keras.Model):  # type: ignore[misc]
    """A graph made by a constructor that takes sizes, as KerasHub's are."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        x = keras.Input((8,))
        super().__init__(x, layers.Dense(width, activation="relu")(Patches(8)(x)), **kwargs)
        self.width = width

    def get_config(self) -> Any:
        """Tells the sizes alone."""
        return {"width": self.width}


def test_nested_models_of_others_are_opened_and_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = keras.Input((8,))
    model = keras.Model(x, layers.Dense(3)(Backbone(16, name="backbone")(x)), name="whole")
    graph = as_graph(model)
    assert not any(isinstance(layer, keras.Model) for layer in graph.layers)
    path = tmp_path / "whole.keras"
    save_model(graph, path)
    assert "paretune.load_model reads the file, Keras alone does not" in caplog.text
    with pytest.raises(TypeError):
        keras.saving.load_model(path)
    np.testing.assert_allclose(load_model(path)(X["u"]), model(X["u"]), atol=1e-6)
    small = prune_channels(model, macs=0.5, round_to=1).model
    # 16 * (8 + 3) multiply-accumulates: half are left
    assert count_macs(small).macs == 8 * 11


def test_foreign_models_whose_layers_have_the_same_names_stay_as_they_are(tmp_path: Path) -> None:
    """Two towers with inner layers of one name: a graph of all layers could not tell them apart."""
    x, y = keras.Input((8,), name="x"), keras.Input((8,), name="y")
    ends = [_tower("left")(x), _tower("right")(y)]
    model = keras.Model([x, y], layers.Dense(3)(layers.Concatenate()(ends)), name="towers")
    graph = as_graph(model)
    given = [X["u"], X["u"] + 1]
    np.testing.assert_array_equal(graph(given), model(given))
    assert sum(isinstance(layer, keras.Model) for layer in graph.layers) == 2


class Tower(keras.Model):  # type: ignore[misc]
    """A graph of a foreign class."""


def _tower(name: str) -> Any:
    inner = keras.Input((8,), name=f"in_{name}")
    return Tower(inner, layers.Dense(4, name="same")(inner), name=name)
