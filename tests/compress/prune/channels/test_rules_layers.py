"""The law for normalization, activations, positions, merging and shaping, one rule at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.compress.prune.channels.law import SEEDS, check

Builder = Callable[[Any], Any]


def sandwich(middle: Builder, shape: tuple[int, ...] = (6, 6, 3), width: int = 8) -> Any:
    """Conv -> middle -> conv (or dense) -> output named "head"."""
    inputs = keras.Input(shape)
    conv = {1: layers.Dense, 2: layers.Conv1D, 3: layers.Conv2D, 4: layers.Conv3D}[len(shape)]
    more = () if len(shape) == 1 else (1,)
    x = middle(conv(width, *more, name="before")(inputs))
    after = {2: layers.Dense, 3: layers.Conv1D, 4: layers.Conv2D, 5: layers.Conv3D}[len(x.shape)]
    x = after(6, *(() if len(x.shape) == 2 else (1,)), activation="relu", name="after")(x)
    if len(x.shape) > 2:
        x = layers.Flatten(name="flat")(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def only_outputs_frozen(coupling: Any) -> None:
    assert [frozen.reason for frozen in coupling.list_frozen()] == ["model output 'head'"]


NORMALIZATIONS = {
    "batch": lambda: layers.BatchNormalization(),
    "batch without scale": lambda: layers.BatchNormalization(scale=False, center=False),
    "layer": lambda: layers.LayerNormalization(),
    "layer over all": lambda: layers.LayerNormalization(axis=[1, 2, 3]),
    "layer without weights": lambda: layers.LayerNormalization(center=False, scale=False),
    "rms": lambda: layers.RMSNormalization(),
    "unit": lambda: layers.UnitNormalization(),
    "group by position": lambda: layers.GroupNormalization(groups=2),
    "group by group": lambda: layers.GroupNormalization(groups=4),
    "instance": lambda: layers.GroupNormalization(groups=-1),
    "rescaling": lambda: layers.Rescaling([0.5 + i for i in range(8)], offset=0.1),
    "rescaling by a number": lambda: layers.Rescaling(1 / 127.5, offset=-1.0),
    "normalization by constants": lambda: layers.Normalization(
        mean=[0.1 * i for i in range(8)], variance=[1.0 + i for i in range(8)]
    ),
    "normalization by a number": lambda: layers.Normalization(None, mean=0.5, variance=2.0),
    "normalization adapted": lambda: layers.Normalization(),
    "spectral conv": lambda: layers.SpectralNormalization(layers.Conv2D(12, 3)),
    "softmax": lambda: layers.Softmax(),
    "softmax over positions": lambda: layers.Softmax(axis=[1, 2]),
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2], alpha_initializer="uniform"),
    "prelu everywhere": lambda: layers.PReLU(alpha_initializer="uniform"),
    "elu": lambda: layers.ELU(),
    "leaky relu": lambda: layers.LeakyReLU(),
    "relu with threshold": lambda: layers.ReLU(6.0, negative_slope=0.1, threshold=0.5),
}


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_normalizations_and_activation_layers(name: str, seed: int) -> None:
    coupling, _, _ = check(sandwich(lambda x: NORMALIZATIONS[name]()(x)), seed=seed)
    only_outputs_frozen(coupling)


@pytest.mark.parametrize("name", ["layer", "layer without weights", "rms", "unit"])
def test_normalizations_beside_another_tracked_axis(name: str) -> None:
    """An offset makes removed entries of the other axis nonzero, so that no sum may run over it."""
    inputs = keras.Input((3,))
    x = layers.EinsumDense("ab,bcd->acd", (4, 5), name="table")(inputs)
    x = keras.ops.sum(NORMALIZATIONS[name]()(x), axis=1)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    frozen = {item.reason: item.units for item in coupling.list_frozen()}
    own = {"sum reduces it": 4} if name == "layer" else {}
    assert frozen == {**own, "model output 'head'": 3}


ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh",
    "tanh_shrink", "threshold", "softmax",
]  # fmt: skip


def lifted(x: Any) -> Any:
    """A user's own function, not registered with Keras."""
    return keras.activations.threshold(x, 0.1, 0.3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_functions(name: str) -> None:
    function = lifted if name == "threshold" else keras.activations.get(name)
    coupling, _, _ = check(sandwich(lambda x: layers.Activation(function)(x)), seed=3)
    only_outputs_frozen(coupling)


def mixing(x: Any) -> Any:
    return x - keras.ops.mean(x, axis=-1, keepdims=True)


def test_activation_that_mixes_channels_is_a_barrier() -> None:
    coupling, _, _ = check(sandwich(lambda x: layers.Activation(mixing)(x)))
    assert any("mixes channels" in frozen.reason for frozen in coupling.list_frozen())


POSITIONS = {
    "max pooling": (lambda: layers.MaxPooling2D(2), (6, 6, 3)),
    "average pooling": (lambda: layers.AveragePooling2D(2), (6, 6, 3)),
    "max pooling 1d": (lambda: layers.MaxPooling1D(2), (6, 3)),
    "average pooling 3d": (lambda: layers.AveragePooling3D(2), (4, 4, 4, 2)),
    "global average": (lambda: layers.GlobalAveragePooling2D(), (6, 6, 3)),
    "global max keepdims": (lambda: layers.GlobalMaxPooling2D(keepdims=True), (6, 6, 3)),
    "global average 1d": (lambda: layers.GlobalAveragePooling1D(), (6, 3)),
    "global max 3d": (lambda: layers.GlobalMaxPooling3D(), (4, 4, 4, 2)),
    "adaptive average": (lambda: layers.AdaptiveAveragePooling2D(3), (6, 6, 3)),
    "adaptive max": (lambda: layers.AdaptiveMaxPooling2D(3), (6, 6, 3)),
    "padding 1d": (lambda: layers.ZeroPadding1D(1), (6, 3)),
    "padding 2d": (lambda: layers.ZeroPadding2D(1), (6, 6, 3)),
    "padding 3d": (lambda: layers.ZeroPadding3D(1), (3, 3, 3, 2)),
    "cropping 1d": (lambda: layers.Cropping1D(1), (6, 3)),
    "cropping 2d": (lambda: layers.Cropping2D(1), (6, 6, 3)),
    "upsampling 1d": (lambda: layers.UpSampling1D(2), (6, 3)),
    "upsampling 2d": (lambda: layers.UpSampling2D(2, interpolation="bilinear"), (6, 6, 3)),
    "upsampling 3d": (lambda: layers.UpSampling3D(2), (2, 2, 2, 2)),
    "resizing": (lambda: layers.Resizing(4, 5), (6, 6, 3)),
    "center crop": (lambda: layers.CenterCrop(4, 4), (6, 6, 3)),
    "dropout": (lambda: layers.Dropout(0.5), (6, 6, 3)),
    "spatial dropout": (lambda: layers.SpatialDropout2D(0.5), (6, 6, 3)),
    "gaussian dropout": (lambda: layers.GaussianDropout(0.5), (5,)),
    "gaussian noise": (lambda: layers.GaussianNoise(0.5), (5,)),
    "alpha dropout": (lambda: layers.AlphaDropout(0.5), (5,)),
    "activity regularization": (lambda: layers.ActivityRegularization(l2=0.1), (5,)),
    "identity": (lambda: layers.Identity(), (5,)),
    "flip": (lambda: layers.RandomFlip("horizontal"), (6, 6, 3)),
    "rotation": (lambda: layers.RandomRotation(0.1), (6, 6, 3)),
    "flatten": (lambda: layers.Flatten(), (4, 4, 3)),
    "flatten 1d": (lambda: layers.Flatten(), (4, 3)),
    "reshape positions": (lambda: layers.Reshape((36, 8)), (6, 6, 3)),
    "reshape folds channels": (lambda: layers.Reshape((6, 48)), (6, 6, 3)),
    "reshape splits channels": (lambda: layers.Reshape((6, 6, 2, 4)), (6, 6, 3)),
    "reshape with -1": (lambda: layers.Reshape((-1, 8)), (6, 6, 3)),
    "permute": (lambda: layers.Permute((2, 1, 3)), (5, 6, 3)),
    "repeat vector": (lambda: layers.RepeatVector(3), (5,)),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_and_shapes(name: str) -> None:
    layer, shape = POSITIONS[name]
    coupling, _, _ = check(sandwich(lambda x: layer()(x), shape), seed=5)
    only_outputs_frozen(coupling)


MERGES = {
    "add": lambda: layers.Add(),
    "subtract": lambda: layers.Subtract(),
    "multiply": lambda: layers.Multiply(),
    "average": lambda: layers.Average(),
    "maximum": lambda: layers.Maximum(),
    "minimum": lambda: layers.Minimum(),
    "concatenate": lambda: layers.Concatenate(),
    "concatenate rows": lambda: layers.Concatenate(axis=1),
}


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("broadcast", [False, True])
def test_merges(name: str, broadcast: bool) -> None:
    if broadcast and "concatenate" in name:
        pytest.skip("concatenation does not broadcast")

    def middle(x: Any) -> Any:
        other = layers.Conv2D(8, 1, activation="sigmoid", name="other")(x)
        if broadcast:
            other = layers.GlobalAveragePooling2D(keepdims=True)(other)
        return MERGES[name]()([x, other])

    coupling, _, _ = check(sandwich(middle), seed=7)
    only_outputs_frozen(coupling)


def test_broadcast_of_one_channel_keeps_it() -> None:
    def middle(x: Any) -> Any:
        gate = layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
        return layers.Multiply(name="gated")([x, gate])

    coupling, _, _ = check(sandwich(middle))
    reasons = {frozen.reason for frozen in coupling.list_frozen()}
    assert reasons == {"model output 'head'", "its only entry is broadcast"}


@pytest.mark.parametrize("linear", [True, False])
def test_dot_sums_over_channels_that_are_zero_only(linear: bool) -> None:
    a, b = keras.Input((4, 3)), keras.Input((5, 3))
    activation = None if linear else "sigmoid"
    q = layers.Dense(8, activation=activation, name="q")(a)
    k = layers.Dense(8, activation=activation, name="k")(b)
    x = layers.Flatten()(layers.Dot((2, 2), name="scores")([q, k]))
    coupling, _, _ = check(keras.Model([a, b], layers.Dense(3, name="head")(x)), removes=linear)
    assert len(coupling.groups) == (1 if linear else 0)


def test_fixed_input_is_concatenated_and_added() -> None:
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 1, name="tied")(inputs)
    x = layers.Add()([x, inputs])
    y = layers.Conv2D(8, 1, name="free")(x)
    x = layers.Concatenate()([inputs, y])
    x = layers.GlobalAveragePooling2D()(x)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    reasons = [frozen.reason for frozen in coupling.list_frozen()]
    assert len(reasons) == 3
    assert sum("model input" in reason for reason in reasons) == 2
    assert [group.name for group in coupling.groups] == ["free"]


def test_channels_first() -> None:
    inputs = keras.Input((3, 8, 8))
    x = layers.ZeroPadding2D(1, data_format="channels_first")(inputs)
    x = layers.Permute((2, 3, 1))(x)
    x = layers.Conv2D(8, 3, name="a")(x)
    x = layers.Permute((3, 1, 2))(x)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.AveragePooling2D(2, data_format="channels_first")(x)
    x = layers.Flatten(data_format="channels_first")(x)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    only_outputs_frozen(coupling)
    assert [group.name for group in coupling.groups] == ["a"]


def test_channels_first_convolution_couples_axis_one() -> None:
    # this backend's CPU kernels cannot run it: the coupling and the shapes are checked
    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.surgery import build_pruned_model

    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(8, 3, data_format="channels_first", name="a")(inputs)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    coupling = analyze_coupling(model)
    mask = np.ones(coupling.unit_count, bool)
    mask[coupling.groups[0].units[:5]] = False
    sliced = build_pruned_model(coupling, mask)
    assert sliced.get_layer("a").output.shape == (None, 3, 6, 6)
    np.testing.assert_array_equal(
        sliced.get_layer("a").kernel.numpy(), model.get_layer("a").kernel.numpy()[..., 5:]
    )


def test_einsum_dense_and_embedding() -> None:
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(11, 8, name="table")(inputs)
    x = layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de", name="split")(x)
    x = layers.EinsumDense("abde,def->abf", (None, 10), bias_axes="f", name="join")(x)
    x = layers.EinsumDense("...a,ab->...b", 6, activation="relu", name="dots")(x)
    x = layers.GlobalAveragePooling1D()(x)
    coupling, sliced, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)))
    only_outputs_frozen(coupling)
    assert len(coupling.groups) == 5
    assert sliced.get_layer("split").output.shape[2] < 4
    assert sliced.get_layer("table").output_dim < 8


def test_shared_layers_nested_models_and_mixed_precision() -> None:
    inner = keras.Input((6, 6, 8))
    y = layers.Conv2D(8, 3, padding="same", name="inner_conv")(inner)
    y = layers.ReLU()(y)
    body = keras.Model(inner, layers.Add()([y, inner]), name="body")
    nested = keras.Sequential([layers.Conv2D(6, 1, name="seq"), layers.ReLU()], name="tail")
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 1, name="stem")(inputs)
    x = body(body(x))
    shared = layers.Conv2D(6, 1, name="shared", trainable=False)
    x = layers.Concatenate()([shared(x), shared(layers.MaxPooling2D(1)(x)), nested(x)])
    x = layers.GlobalAveragePooling2D()(x)
    outputs = [layers.Dense(3, name="head")(x), layers.Dense(2, name="second")(x)]
    model = keras.Model(inputs, outputs)
    coupling, sliced, _ = check(model, seed=2)
    reasons = {frozen.reason for frozen in coupling.list_frozen()}
    assert reasons == {"model output 'head'", "model output 'second'"}
    assert [layer.name for layer in sliced.layers] == [layer.name for layer in model.layers]
    assert [layer.name for layer in sliced.get_layer("body").layers] == [
        layer.name for layer in body.layers
    ]
    assert not sliced.get_layer("shared").trainable
    assert isinstance(sliced.get_layer("tail"), keras.Sequential)
    assert len(sliced.get_layer("shared")._inbound_nodes) == 2


def test_sequential_stays_sequential_and_keeps_its_policy() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            layers.Conv2D(8, 3, dtype="mixed_bfloat16", name="a"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(),
            layers.Dense(3, name="head"),
        ],
        name="chain",
    )
    from compress.prune.channels.analysis import analyze_coupling
    from compress.prune.channels.surgery import build_pruned_model

    coupling = analyze_coupling(model)
    mask = np.ones(coupling.unit_count, bool)
    mask[coupling.groups[0].units[::2]] = False
    sliced = build_pruned_model(coupling, mask)
    assert isinstance(sliced, keras.Sequential)
    assert sliced.name == "chain"
    assert sliced.layers[0].compute_dtype == "bfloat16"
    assert [layer.name for layer in sliced.layers] == [layer.name for layer in model.layers]


def test_structured_inputs_and_outputs_keep_their_structure() -> None:
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((5,), name="right")}
    x = layers.Dense(8, name="a")(inputs["left"])
    y = layers.Dense(8, name="b")(inputs["right"])
    z = layers.Add()([x, y])
    outputs = {"one": layers.Dense(2, name="one")(z), "two": layers.Dense(3, name="two")(x)}
    _, sliced, _ = check(keras.Model(inputs, outputs))
    assert set(sliced.output) == {"one", "two"}
    assert set(sliced.input) == {"left", "right"}


def test_zeros_that_are_not_there_are_no_reason_to_prune_a_sum() -> None:
    """Removed entries of a softmax over positions are shares; those of a filled border are ones."""
    inputs = keras.Input((6, 5))
    x = layers.Permute((2, 1))(layers.Dense(8, name="before")(inputs))
    x = keras.ops.sum(layers.Activation("softmax")(x), axis=1)
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)), removes=False)
    assert any("sum reduces it" in frozen.reason for frozen in coupling.list_frozen())

    images = keras.Input((8, 6, 3))
    x = layers.Conv2D(8, 3, padding="same", name="before")(images)
    x = layers.Resizing(8, 8, pad_to_aspect_ratio=True, fill_value=1.0)(x)
    x = layers.Flatten()(keras.ops.sum(x, axis=-1, keepdims=True))
    coupling, _, _ = check(keras.Model(images, layers.Dense(3, name="head")(x)), removes=False)
    assert any("sum reduces it" in frozen.reason for frozen in coupling.list_frozen())


def test_a_normalized_product_has_the_lengths_of_all_entries() -> None:
    inputs = keras.Input((5,))
    first = layers.Dense(8, name="first")(inputs)
    second = layers.Dense(8, activation="sigmoid", name="second")(inputs)
    x = layers.Dot(axes=1, normalize=True)([first, second])
    coupling, _, _ = check(keras.Model(inputs, layers.Dense(3, name="head")(x)), removes=False)
    assert sum("a product sums over it" in item.reason for item in coupling.list_frozen()) > 0
