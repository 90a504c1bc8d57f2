"""Morphed networks against the networks they come of, and against slices made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.measure.divergence import divergence
from search.trial.morphing import morph
from tests.compress.prune.channels.law import outputs_of, randomize
from tests.same import same_arrays

RNG = np.random.default_rng(0)


def residual(width: int, inner: int, hidden: int) -> Any:
    """Convolutions in a residual sum, normalized; by depth; pooled; dense."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(width, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(inner, 1, name="in")(x)
    y = layers.ReLU()(layers.BatchNormalization(name="in_bn")(y))
    y = layers.DepthwiseConv2D(3, padding="same", name="depth")(y)
    y = layers.Conv2D(width, 1, name="out")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(hidden, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))


def flattened(width: int, other: int) -> Any:
    """Two branches side by side, positions in a row, layers that share a kernel's outputs."""
    inputs = keras.Input((6, 6, 2))
    a = layers.Conv2D(width, 3, activation="relu", name="a")(inputs)
    b = layers.SeparableConv2D(other, 3, activation="relu", name="b")(inputs)
    x = layers.Concatenate(name="both")([a, b])
    x = layers.Conv2D(8, 1, name="mix")(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.Flatten()(x)))


def positions(width: int) -> Any:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(width, 3, activation="relu", name="a")(inputs)
    return keras.Model(inputs, layers.Dense(5, name="head")(layers.Flatten()(x)))


def sequence(width: int, units: int) -> Any:
    inputs = keras.Input((7, 3))
    x = layers.Conv1D(width, 3, padding="causal", activation="relu", name="conv")(inputs)
    x = layers.LSTM(units, name="lstm")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def attention(width: int) -> Any:
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, width, name="attention")(inputs, inputs)
    x = layers.Dense(2 * width, activation="relu", name="up")(x)
    return keras.Model(inputs, layers.Dense(8, name="down")(x))


def made(build: Callable[..., Any], *sizes: int, seed: int = 0) -> Any:
    model = build(*sizes)
    randomize(model, np.random.default_rng(seed))
    return model


def examples(model: Any) -> Any:
    return RNG.normal(size=(6, *model.input_shape[1:])).astype("float32")


WIDER: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "all": (residual, (4, 6, 5), (9, 11, 13)),
    "one": (residual, (4, 6, 5), (4, 10, 5)),
    "none": (residual, (4, 6, 5), (4, 6, 5)),
    "concatenated": (flattened, (3, 4), (5, 9)),
    "positions": (positions, (3,), (7,)),
    "recurrent": (sequence, (4, 5), (6, 9)),
    "attention": (attention, (6,), (6,)),
}


@pytest.mark.parametrize("case", WIDER)
def test_a_wider_network_computes_what_the_old_one_did(case: str) -> None:
    build, before, after = WIDER[case]
    source, model = made(build, *before), made(build, *after, seed=1)
    old = [weight.numpy() for weight in source.weights]
    done = morph(model, source, noise=0.0)
    assert done.taken == done.layers
    assert (done.widened > 0) == (before != after)
    x = examples(model)
    for one, two in zip(outputs_of(model, x), outputs_of(source, x), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    same_arrays(old, [weight.numpy() for weight in source.weights])


def test_copies_are_told_apart() -> None:
    source, model = made(residual, 4, 6, 5), made(residual, 9, 11, 13, seed=1)
    morph(model, source)
    kernel = model.get_layer("hidden").kernel.numpy()
    assert len(np.unique(kernel[0])) == 13
    x = examples(model)
    assert 0 < divergence(outputs_of(source, x), outputs_of(model, x)) < 0.01


def test_a_thinner_network_keeps_the_units_of_the_largest_weights() -> None:
    inputs = keras.Input((3,))
    source = keras.Model(inputs, layers.Dense(2, name="b")(layers.Dense(5, name="a")(inputs)))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="b")(layers.Dense(3, name="a")(inputs)))
    randomize(source, np.random.default_rng(0))
    first, bias, second, last = (weight.numpy() for weight in source.weights)
    scale = np.array([1, 9, 1, 9, 9])[:, None]
    source.layers[1].kernel.assign(first * scale.T)
    source.layers[2].kernel.assign(second * scale)
    done = morph(model, source)
    assert (done.taken, done.widened, done.thinned) == (2, 0, 2)
    kept = [1, 3, 4]
    wanted = [(first * scale.T)[:, kept], bias[kept], (second * scale)[kept], last]
    for weight, value in zip(model.weights, wanted, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-6)


def blocks(count: int) -> Any:
    inputs = keras.Input((8,))
    x = layers.Dense(6, name="stem")(inputs)
    for place in range(count):
        y = layers.Dense(7, activation="relu", name=f"block{place}_1")(x)
        y = layers.BatchNormalization(name=f"block{place}_bn")(
            layers.Dense(6, name=f"block{place}_2")(y)
        )
        x = layers.Add(name=f"sum{place}")([x, y])
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_a_new_residual_block_adds_nothing() -> None:
    source, model = made(blocks, 1), made(blocks, 3, seed=1)
    done = morph(model, source)
    assert done.begun == ("sum1", "sum2")
    assert str(done) == "weights of 5 of 11 layers and nothing for 2 new residual blocks"
    x = examples(model)
    np.testing.assert_allclose(outputs_of(model, x)[0], outputs_of(source, x)[0], rtol=1e-5)
    assert model.get_layer("block1_1").kernel.numpy().any(), "it can learn"


def test_what_does_not_fit_is_left() -> None:
    inputs = keras.Input((8, 8, 2))  # other positions behind the same convolution
    x = layers.Conv2D(7, 3, activation="relu", name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(5, name="head")(layers.Flatten()(x)))
    source = made(positions, 3)
    before = model.get_layer("head").kernel.numpy()
    done = morph(model, source)
    assert (done.taken, done.layers) == (1, 2)
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), before)


def test_other_classes_leave_the_last_layer() -> None:
    source = made(blocks, 1)
    inputs = keras.Input((8,))
    x = layers.Dense(6, name="stem")(inputs)
    model = keras.Model(inputs, layers.Dense(9, name="head")(x))
    assert morph(model, source).taken == 1
    np.testing.assert_array_equal(
        model.get_layer("stem").kernel.numpy(), source.get_layer("stem").kernel.numpy()
    )


def test_blocks_of_a_network_that_takes_nothing_stay() -> None:
    inputs = keras.Input((8,))
    source = keras.Model(inputs, layers.Dense(3, name="other")(inputs))
    model = made(blocks, 2)
    before = [weight.numpy() for weight in model.weights]
    done = morph(model, source)
    assert (done.taken, done.begun) == (0, ())
    same_arrays(before, [weight.numpy() for weight in model.weights])
