"""Equalized channels: outputs stay, scales are those of the equation, reasons are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from compress import quantize
from compress.quantization.equalizing import equalize
from compress.quantization.equalizing.call import TABLE

layers = keras.layers


def uneven(model: keras.Model) -> keras.Model:
    """Gives a model weights whose channels differ a hundredfold, and statistics of its own."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        values = rng.normal(size=weight.shape)
        if "variance" in weight.name:
            values = np.abs(values) + 0.5
        elif len(weight.shape):
            values = values * 10.0 ** rng.uniform(-1, 1, weight.shape[-1:])
        weight.assign(values)
    return model


def examples(*shape: int) -> Any:
    """Returns the same numbers for a shape, whatever tests ran before."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def graph(build: Callable[[Any], Any], shape: tuple[int, ...]) -> keras.Model:
    given = keras.Input(shape)
    return uneven(keras.Model(given, build(given)))


def made_by(model: keras.Model, x: Any, name: str) -> Any:
    """Returns what a layer makes of examples."""
    return np.asarray(keras.Model(model.input, model.get_layer(name).output)(x))


def _attention(x: Any) -> Any:
    normed = layers.LayerNormalization()(x)
    made = layers.MultiHeadAttention(2, 3)(normed, normed)
    return layers.Dense(3)(layers.Dense(4)(layers.Add()([made, layers.Dense(5)(x)])))


def _dense_block(x: Any) -> Any:
    first = layers.Conv2D(4, 3, activation="relu", padding="same")(x)
    second = layers.Conv2D(5, 3, activation="leaky_relu", padding="same")(first)
    return layers.Conv2D(2, 1)(layers.Concatenate()([first, second]))


def _residual(x: Any) -> Any:
    trunk = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
    made = layers.ReLU()(layers.Conv2D(4, 3, padding="same")(layers.PReLU()(trunk)))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Add()([trunk, made])))


def _flattened(x: Any) -> Any:
    made = layers.MaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    return layers.Dense(3)(layers.Dropout(0.5)(layers.Flatten()(layers.ZeroPadding2D()(made))))


def _enlarged(x: Any) -> Any:
    made = layers.Conv2DTranspose(6, 2, strides=2, activation="relu")(layers.Conv2D(4, 1)(x))
    made = layers.UpSampling2D()(layers.Cropping2D(1)(made))
    return layers.Conv2D(4, 3, groups=2)(keras.ops.relu(layers.Conv2D(8, 3, groups=2)(made)))


def _by_depth(x: Any) -> Any:
    made = layers.Conv2D(4, 1, activation="relu")(x)
    made = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(made)
    return layers.Conv2D(2, 1)(layers.SeparableConv2D(5, 3)(made))


def _rearranged(x: Any) -> Any:
    made = layers.Reshape((16, 2, 4))(layers.Conv2D(4, 1, activation="relu")(x))
    made = layers.Concatenate(axis=1)([made, made])
    made = keras.ops.maximum(made, layers.Average()([made, layers.Identity()(made)]))
    return layers.Conv2D(3, 1)(layers.AveragePooling2D(2)(layers.Activation("relu")(made)))


def _series(x: Any) -> Any:
    made = layers.GaussianDropout(0.5)(layers.Conv1D(4, 3, activation="relu")(x))
    return layers.Dense(2)(layers.GlobalMaxPooling1D()(layers.SpatialDropout1D(0.5)(made)))


def _merged(x: Any) -> Any:
    made = layers.GroupNormalization(2)(layers.Conv2D(4, 3, padding="same")(x))
    least = layers.Minimum()([made, layers.Conv2D(4, 1)(x)])
    most = layers.Maximum()([layers.LeakyReLU()(least), made])
    return layers.Conv2D(2, 3)(layers.Subtract()([most, least]))


GRAPHS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "attention": (_attention, (6, 5)),
    "dense block": (_dense_block, (8, 8, 3)),
    "residual": (_residual, (8, 8, 3)),
    "flattened": (_flattened, (8, 8, 3)),
    "enlarged": (_enlarged, (4, 4, 3)),
    "by depth": (_by_depth, (8, 8, 3)),
    "rearranged": (_rearranged, (8, 4, 3)),
    "series": (_series, (9, 3)),
    "merged": (_merged, (6, 6, 3)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_outputs_stay(name: str) -> None:
    build, shape = GRAPHS[name]
    model = graph(build, shape)
    x = examples(32, *shape)
    before, weights = np.asarray(model(x)), [np.array(one) for one in model.get_weights()]
    found = equalize(model, [x])
    after = np.asarray(model(x))
    assert found.scaled >= 4, found.left
    assert any((new != old).any() for new, old in zip(model.get_weights(), weights, strict=True))
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5 * np.abs(before).max())


def test_values_and_weights_share_what_they_differ_by() -> None:
    """s = sqrt(a / w), by hand: values and weights then have sqrt(a w) each, up to a factor."""
    given = keras.Input((2,))
    hidden = layers.Dense(3, activation="relu", name="hidden")(given)
    model = keras.Model(given, layers.Dense(2, name="out")(hidden))
    model.get_layer("hidden").set_weights([np.array([[8.0, 0, 1], [0, 2, 1]]), np.zeros(3)])
    model.get_layer("out").set_weights([np.array([[2.0, 1], [1, -8], [3, 1]]), np.zeros(2)])
    x = np.eye(2, dtype=np.float32)
    # a = (8, 2, 1), w = (2, 8, 3); over their geometric mean: ratios alone count
    wanted = np.sqrt(np.array([8.0, 2, 1]) / np.array([2.0, 8, 3]))
    wanted /= np.exp(np.log(wanted).mean())
    equalize(model, [x])
    kernel, _ = model.get_layer("out").get_weights()
    scales = kernel[:, 0] / np.array([2.0, 1, 3])
    np.testing.assert_allclose(scales, wanted, rtol=1e-5)
    values = made_by(model, x, "hidden")
    shares = values.max(axis=0) / np.abs(kernel).max(axis=1)
    np.testing.assert_allclose(shares, np.full(3, shares[0]), rtol=1e-5)


def test_what_depthwise_kernels_read_gets_one_range() -> None:
    given = keras.Input((4, 4, 3))
    made = layers.Conv2D(4, 1, activation="relu", name="made")(given)
    model = uneven(keras.Model(given, layers.DepthwiseConv2D(3)(made)))
    x = examples(64, 4, 4, 3)
    equalize(model, [x])
    values = made_by(model, x, "made")
    largest = values.max(axis=(0, 1, 2))
    np.testing.assert_allclose(largest, np.full(4, largest[0]), rtol=1e-5)


def test_pinned_channels_hold_the_others_to_their_scale() -> None:
    """Inputs stay as they are; what is joined to them is scaled until it is alike."""
    given = keras.Input((2,))
    hidden = layers.Dense(2, activation="relu", name="hidden")(given)
    joined = layers.Concatenate()([given, hidden])
    model = keras.Model(given, layers.Dense(1, name="out")(joined))
    model.get_layer("hidden").set_weights([np.diag([100.0, 1.0]), np.zeros(2)])
    model.get_layer("out").set_weights([np.ones((4, 1)), np.zeros(1)])
    found = equalize(model, [np.eye(2, dtype=np.float32)])
    # a = (1, 1, 100, 1), w = (100, 1, 1, 1), for the inputs are read by both layers: of the
    # pinned two sqrt(a / w) is sqrt(0.1) in the geometric mean, of the others 10 and 1
    kernel, _ = model.get_layer("out").get_weights()
    np.testing.assert_allclose(kernel[:, 0], [1, 1, 10 / 0.1**0.5, 1 / 0.1**0.5], rtol=1e-5)
    assert (found.scaled, found.read) == (2, 4)


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (lambda x: layers.ReLU(max_value=6.0, name="six")(x), "'six' (ReLU)"),
        (lambda x: layers.Activation("gelu", name="soft")(x), "gelu(s x)"),
        (lambda x: layers.Lambda(lambda y: y + 1, name="own")(x), "'own' (Lambda): no rule"),
        (lambda x: layers.Softmax(name="shares")(x), "'shares' (Softmax)"),
    ],
    ids=["limit", "gelu", "lambda", "softmax"],
)
def test_what_is_not_homogeneous_is_left_and_named(
    behind: Callable[[Any], Any], reason: str
) -> None:
    model = graph(lambda x: layers.Dense(2)(behind(layers.Dense(5)(x))), (3,))
    before = model.get_weights()
    found = equalize(model, [examples(16, 3)])
    assert (found.scaled, found.read) == (0, 8)
    assert any(reason in text and count == 5 for text, count in found.left.items()), found.left
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "0 of 8 channels were equalized" in found.told()


def test_a_layer_that_is_called_twice_is_scaled_once() -> None:
    shared = layers.Dense(4, activation="relu")

    def build(x: Any) -> Any:
        return layers.Dense(2)(shared(shared(layers.Dense(4, activation="relu")(x))))

    model = graph(build, (3,))
    x = examples(16, 3)
    before = np.asarray(model(x))
    assert equalize(model, [x]).scaled == 3 * 4  # one scale for the three that are tied
    np.testing.assert_allclose(np.asarray(model(x)), before, rtol=1e-4)


def test_weights_that_an_unknown_call_reads_too_are_left() -> None:
    shared = layers.Dense(4, name="shared")

    def build(x: Any) -> Any:
        plain = layers.Dense(2)(shared(x))
        return layers.Concatenate()([plain, layers.TimeDistributed(shared)(
            layers.Reshape((1, 3))(x))[:, 0]])  # fmt: skip

    model = graph(build, (3,))
    x = examples(16, 3)
    before = np.asarray(model(x))
    assert equalize(model, [x]).scaled == 0
    np.testing.assert_array_equal(np.asarray(model(x)), before)


def test_zeros_stay_and_dead_channels_are_left() -> None:
    model = graph(lambda x: layers.Dense(2)(layers.Dense(5, activation="relu")(x)), (3,))
    kernel, bias = model.layers[1].get_weights()
    kernel[1], kernel[:, 2], bias[2] = 0.0, 0.0, -1.0
    model.layers[1].set_weights([kernel, bias])
    found = equalize(model, [examples(64, 3)])
    assert not model.layers[1].get_weights()[0][1].any()
    assert "they are never anything but zero" in found.left


def test_nested_models_are_gone_through() -> None:
    given = keras.Input((4,))
    inner = keras.Model(given, layers.Dense(3)(layers.Dense(6, activation="relu")(given)))
    model = graph(lambda x: layers.Dense(2)(inner(layers.Dense(4)(x))), (3,))
    x = examples(16, 3)
    before = np.asarray(model(x))
    assert equalize(model, [x]).scaled == 4 + 6 + 3
    np.testing.assert_allclose(np.asarray(model(x)), before, rtol=1e-4, atol=1e-4)


def test_whole_numbers_lose_less_of_channels_that_were_far_apart() -> None:
    model = graph(_dense_block, (8, 8, 3))
    for name in [layer.name for layer in model.layers if "conv" in layer.name][:2]:
        kernel, bias = model.get_layer(name).get_weights()
        apart = 10.0 ** np.linspace(-1.5, 1.5, kernel.shape[-1])
        model.get_layer(name).set_weights([kernel * apart, bias * apart])
    last = model.layers[-1]
    kernel, bias = last.get_weights()
    last.set_weights([kernel / np.tile(10.0 ** np.linspace(-1.5, 1.5, 9), 1)[:, None], bias])
    x = examples(256, 8, 8, 3)
    wanted = np.asarray(model(x))

    def error(**settings: Any) -> float:
        made = quantize(model, x, epochs=0, calibration="minmax", **settings)
        return float(np.square(np.asarray(made.quantized(x)) - wanted).mean())

    assert error(equalize=True) < 0.5 * error()


def test_quantize_says_what_was_equalized() -> None:
    model = graph(_dense_block, (8, 8, 3))
    x = examples(64, 8, 8, 3)
    made = quantize(model, x, epochs=0, equalize=True)
    assert any("channels were equalized" in note for note in made.notes)
    np.testing.assert_allclose(made.model(x), model(x), rtol=1e-3, atol=1e-2)


def test_every_rule_is_tried_here() -> None:
    """A rule without a graph above would be trusted blindly."""

    def family(name: str) -> str:
        return re.sub("[123]D", "", name)

    tried = {
        family(type(layer).__name__)
        for build, shape in GRAPHS.values()
        for layer in graph(build, shape).layers
    }
    known = {family(name) for name in TABLE.names() if not name.startswith("ops.")}
    assert known - tried == set()
