"""Subclassed models and layers made of layers are opened, or kept whole and reported."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from compress.core.errors import FeasibleError, InputError, RunFailed
from compress.model.recording import record_program
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from tests.compress.prune.channels.law import check


class Convolutions(keras.Model):
    """A plain subclassed CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Conv2D(16, 3, padding="same", name="first")
        self.norm = layers.BatchNormalization(name="norm")
        self.second = layers.Conv2D(16, 3, padding="same", name="second")
        self.pool = layers.GlobalAveragePooling2D()
        self.head = layers.Dense(3, name="head")

    def call(self, x: Any, training: Any = None) -> Any:
        x = ops.relu(self.norm(self.first(x), training=training))
        return self.head(self.pool(x + self.second(x)))


class Block(layers.Layer):
    """Two dense layers and a residual."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.up = layers.Dense(2 * width, activation="gelu", name="up")
        self.down = layers.Dense(width, name="down")

    def build(self, shape: Any) -> None:
        self.up.build(shape)
        self.down.build((*shape[:-1], self.up.units))

    def call(self, x: Any) -> Any:
        return x + self.down(self.up(x))


class Blocks(keras.Model):
    """A list of blocks."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.stem = layers.Dense(8, name="stem")
        self.blocks = [Block(8) for _ in range(count)]
        self.head = layers.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Encoder(layers.Layer):
    """A transformer encoder: attention, two dense layers, normalizations, residuals."""

    def __init__(self, heads: int, key: int, hidden: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads, self.key, self.hidden = heads, key, hidden
        self.attention = layers.MultiHeadAttention(heads, key, name="attention")
        self.drop = layers.Dropout(0.1)
        self.first = layers.LayerNormalization(name="first")
        self.second = layers.LayerNormalization(name="second")
        self.expand = layers.Dense(hidden, activation="relu", name="expand")

    def build(self, shape: Any) -> None:
        self.project = layers.Dense(shape[-1], name="project")
        self.attention.build(shape, shape)
        self.first.build(shape)
        self.expand.build(shape)
        self.project.build((*shape[:-1], self.hidden))
        self.second.build(shape)

    def call(self, x: Any, training: Any = None) -> Any:
        y = self.drop(self.attention(x, x), training=training)
        x = self.first(x + y)
        return self.second(x + self.project(self.expand(x)))


class Raw(layers.Layer):
    """A raw TensorFlow operation that symbolic tensors cannot enter."""

    def call(self, x: Any) -> Any:
        return tf.raw_ops.Relu(features=x)


class Trained(layers.Layer):
    """Does something else in training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(8)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any, training: Any = None) -> Any:
        return x if training else self.dense(x)


class Positions(layers.Layer):
    """Looks a table up without its input: the weights would be lost in a trace."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = layers.Embedding(4, 8)

    def build(self, shape: Any) -> None:
        self.table.build((None,))

    def call(self, x: Any) -> Any:
        return x + self.table(ops.arange(4))


def transformer() -> Any:
    inputs = keras.Input((5, 12), name="tokens")
    x = Encoder(4, 8, 32, name="encoder_0")(inputs)
    x = layers.Dense(12, name="between")(x)
    x = Encoder(4, 8, 32, name="encoder_1")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_subclassed_cnn() -> None:
    model = Convolutions()
    model(np.zeros((2, 8, 8, 1), np.float32))
    coupling, sliced, _ = check(model)
    assert [group.makers for group in coupling.groups] == [("first", "second")]
    assert isinstance(sliced, keras.Model)
    assert sliced.get_layer("norm") is not None
    own = list(model._flatten_layers(include_self=False))
    assert own
    assert not [layer for layer in own if layer._inbound_nodes]


def test_subclassed_model_with_a_list_of_blocks() -> None:
    model = Blocks(3)
    model(np.zeros((2, 5), np.float32))
    coupling, sliced, _ = check(model, keep=0.5)
    names = [layer.name for layer in sliced.layers]
    assert len(set(names)) == len(names)
    assert len(coupling.groups) == 1 + 3  # the residual stream and each block's hidden layer
    assert coupling.program.opened_layers
    assert len(coupling.program.opened_layers) == 3


def test_transformer_encoder_as_a_composite_layer_to_half() -> None:
    coupling, sliced, _ = check(transformer(), keep=0.5)
    kinds = [group.kind for group in coupling.groups]
    assert kinds.count("heads") == 2
    attention = sliced.get_layer("encoder_1_attention")
    assert attention.num_heads == 2
    assert attention.key_dim == 4
    assert attention.value_dim == 4
    assert sliced.get_layer("encoder_1_expand").units == 16
    # encoder_0 adds to the model's input; encoder_1's stream is free
    assert sliced.get_layer("between").units == 6


def test_prune_channels_opens_a_transformer() -> None:
    result = prune_channels(
        transformer(), cost=lambda kept, _: kept.sum(-1), share=0.5, scope="layer", round_to=1
    )
    assert result.report.opened == ("encoder_0", "encoder_1")
    heads = [row for row in result.report.groups if row.kind == "heads"]
    assert [(row.total, row.kept) for row in heads] == [(4, 2), (4, 2)]


def test_a_raw_tensorflow_operation_keeps_its_layer_whole() -> None:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, name="before")(inputs)
    x = Raw(name="raw")(x)
    x = layers.Conv2D(8, 3, name="after")(x)
    x = layers.GlobalAveragePooling2D()(x)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    assert [group.name for group in coupling.groups] == ["after"]
    kind, reason = coupling.graph.unknown["raw"]
    assert kind == "Raw"
    assert "fails on symbolic tensors" in reason


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Trained(name="own"), "something else in training"),
        (Positions(name="own"), "uses weights outside of layer calls"),
    ],
)
def test_what_a_trace_would_falsify_stays_closed(layer: Any, reason: str) -> None:
    inputs = keras.Input((4, 8))
    x = layer(layers.Dense(8, name="before")(inputs))
    x = layers.Dense(8, name="after")(x)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    assert reason in coupling.graph.unknown["own"][1]
    assert [group.name for group in coupling.groups] == ["after"]


class Untraceable(keras.Model):
    """A model whose call reads values."""

    def __init__(self) -> None:
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.head(tf.raw_ops.Relu(features=x))


def test_a_model_that_cannot_be_read() -> None:
    model = Untraceable()
    model(np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match=r"must be a graph or traceable.*keras\.ops only"):
        prune_channels(model, macs=0.5)


def test_a_model_that_was_never_built() -> None:
    with pytest.raises(InputError, match="must be built before it can be read"):
        prune_channels(Convolutions(), macs=0.5)


def test_tracing_leaves_no_nodes_behind() -> None:
    model = Blocks(2)
    model(np.zeros((2, 5), np.float32))
    record_program(model, lambda layer: isinstance(layer, Block))
    record_program(model, lambda layer: isinstance(layer, Block))
    assert sum(len(layer._outbound_nodes) for layer in model._flatten_layers()) == 0
    analyze_coupling(model)


class Patches(layers.Layer):
    """Folds the pixels of images, by the batch size that `ops.shape` tells, and unfolds them."""

    def __init__(self, way: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.way = way
        self.up = layers.Dense(24, activation="relu", name="up")
        self.down = layers.Dense(16, name="down")

    def build(self, shape: Any) -> None:
        self.up.build((None, None, shape[-1]))
        self.down.build((None, None, 24))

    def call(self, x: Any) -> Any:
        batch, rows, columns, channels = ops.shape(x)
        pixels = -1 if self.way == "computed" else rows * columns
        x = self.down(self.up(ops.reshape(x, (batch, pixels, channels))))
        return ops.reshape(x, (batch, rows, columns, 16))


class Subclassed(keras.Model):
    """The same in a class of its own, flattened in the end."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.stem = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")
        self.patches = Patches(way, name="patches")
        self.last = layers.Conv2D(8, 3, name="last")
        self.head = layers.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        x = self.last(self.patches(self.stem(x)))
        return self.head(ops.reshape(x, (ops.shape(x)[0], -1)))


def folded(way: str) -> Any:
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.Conv2D(8, 3, name="last")(Patches(way, name="patches")(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


@pytest.mark.parametrize("way", ["told", "computed"])
@pytest.mark.parametrize("build", [folded, Subclassed])
def test_reshapes_by_the_batch_size_of_shape(build: Any, way: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 3)).astype(np.float32)
    model = build(way)
    model(x)
    coupling, small, _ = check(model, inputs=x, keep=0.5)
    names = {name for group in coupling.groups for name in group.makers}
    # the sum behind "down" is read by "last", its inner layer by itself
    assert {"stem", "patches_up", "patches_down", "last"} <= names
    for count in (1, 5):
        assert small(x[:count]).shape == (count, 3)
    assert small.predict(x, verbose=0).shape == (5, 3)


def test_a_model_of_a_class_is_pruned_with_data() -> None:
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 3)).astype(np.float32)
    model = Subclassed("told")
    model(x[:2])
    result = prune_channels(model, macs=0.5, data=x, round_to=2)
    assert result.report.repair is not None
    assert result.model.predict(x, verbose=0).shape == (64, 3)


class Folded(layers.Layer):
    """Folds an axis of open size into another by its symbolic size."""

    def call(self, x: Any) -> Any:
        return ops.reshape(x, (-1, ops.shape(x)[1], 2, 8))


def test_a_size_that_nobody_knows_keeps_the_layer_whole() -> None:
    inputs = keras.Input((None, 3))
    x = layers.Dense(16, name="stem")(inputs)
    frozen = analyze_coupling(keras.Model(inputs, Folded(name="folded")(x))).list_frozen()
    assert any("it reshapes (None, None, 16) to (-1, None, 2, 8)" in row.reason for row in frozen)


class Two(layers.Layer):
    """Returns None beside its tensor, as attention without weights does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(16, activation="relu", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x), None


class Wrapped(layers.Layer):
    """Uses such a layer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.two = Two(name="two")
        self.down = layers.Dense(4, name="down")

    def build(self, shape: Any) -> None:
        self.two.build(shape)
        self.down.build((*shape[:-1], 16))

    def call(self, x: Any) -> Any:
        return self.down(self.two(x)[0])


def test_inner_layers_that_return_none_beside_a_tensor_are_opened() -> None:
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Wrapped(name="wrapped")(inputs)))
    coupling, _, _ = check(model, keep=0.5)
    assert ("wrapped_inner",) in [group.makers for group in coupling.groups]
    # the class is called as ever
    assert "__call__" not in Two.__dict__


def test_a_smaller_model_that_cannot_be_called_is_never_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = folded("told")
    monkeypatch.setattr("compress.model.recording._with_open_batch", lambda reshape, _: reshape)
    with pytest.raises(RunFailed, match=r"must be callable as the original is. .*None"):
        prune_channels(model, macs=0.5)


def test_what_stays_whole_is_named_layer_by_layer() -> None:
    inputs = keras.Input((None, 6))
    x = Raw(name="raw1")(Raw(name="raw0")(inputs))
    x = Folded(name="folded")(layers.Dense(16, name="dense")(x))
    with pytest.raises(FeasibleError) as caught:
        prune_channels(keras.Model(inputs, x), macs=0.5, scope="layer")
    said = str(caught.value)
    assert "Layers that keep all channels: raw0 and 1 more (Raw): no rule for this class" in said
    assert "folded (Folded): no rule for this class, and it cannot be opened: it reshapes " in said
    assert "(None, None, 16) to (-1, None, 2, 8), sizes that are not known" in said
