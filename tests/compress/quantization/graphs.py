"""Random graphs of layers that have rules, none of which stays in floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ACTIVATIONS = (None, None, "relu", "relu", "relu6", "tanh", "sigmoid", "silu", "gelu")


def graph(seed: int) -> Any:
    """Returns a model of 3 to 12 layers for images, sequences or rows; weights of all sizes."""
    import keras

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    kind = rng.choice(["image", "image", "sequence", "row"])
    shape = {"image": (10, 8, 3), "sequence": (12, 5), "row": (9,)}[kind]
    inputs = keras.Input(shape)
    x, others = inputs, []
    makers = {"image": IMAGE, "sequence": SEQUENCE, "row": ROW}[kind]
    for _ in range(int(rng.integers(3, 13))):
        make = makers[int(rng.integers(len(makers)))]
        x = make(x, rng, others)
        if rng.random() < 0.4:
            others.append(x)
    if len(x.shape) > 2 and rng.random() < 0.7:
        x = _pooled(x, rng)
    if rng.random() < 0.6:
        x = keras.layers.Dense(5, activation=_one(rng, (None, "softmax", "sigmoid")))(x)
    model = keras.Model(inputs, x, name=f"graph_{seed}")
    scatter(model, rng)
    return model


def scatter(model: Any, rng: np.random.Generator) -> None:
    """Gives a model weights and statistics that look trained: channels differ in size."""
    for layer in model.layers:
        for variable in layer.weights:
            value = variable.numpy()
            name = variable.path.rsplit("/", 1)[-1]
            if name == "moving_variance":
                value = rng.uniform(0.3, 2.0, value.shape)
            elif name in ("gamma",):
                value = rng.uniform(0.5, 1.5, value.shape)
            elif name in ("beta", "bias", "moving_mean", "embeddings"):
                value = rng.normal(0, 0.3, value.shape)
            elif value.dtype.kind == "f" and value.ndim > 1:
                value = value * np.exp(rng.normal(0, 0.5, value.shape[-1]))
            variable.assign(value.astype(variable.dtype))


def _one(rng: np.random.Generator, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _pooled(x: Any, rng: np.random.Generator) -> Any:
    import keras

    pool = keras.layers
    if len(x.shape) == 4:
        kinds: tuple[Any, ...] = (
            pool.GlobalAveragePooling2D,
            pool.GlobalMaxPooling2D,
            pool.Flatten,
        )
    else:
        kinds = (pool.GlobalAveragePooling1D, pool.GlobalMaxPooling1D, pool.Flatten)
    return _one(rng, kinds)()(x)


def _conv2d(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.Conv2D(
        int(rng.integers(3, 9)), _one(rng, (1, 3, (1, 3))), strides=_one(rng, (1, 1, 1, 2)),
        padding="same", use_bias=bool(rng.integers(2)), activation=_one(rng, ACTIVATIONS),
    )(x)  # fmt: skip


def _conv_bn(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    x = keras.layers.Conv2D(6, 3, padding="same", use_bias=False)(x)
    x = keras.layers.BatchNormalization()(x)
    return _one(rng, (keras.layers.ReLU(), keras.layers.ReLU(max_value=6.0)))(x)


def _depthwise(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    x = keras.layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=_one(rng, (1, 1, 2)), activation=_one(rng, ACTIVATIONS)
    )(x)
    return keras.layers.BatchNormalization()(x)


def _separable(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.SeparableConv2D(6, 3, padding="same", activation=_one(rng, ACTIVATIONS))(x)


def _transposed(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    if x.shape[1] > 20:
        return x
    return keras.layers.Conv2DTranspose(5, _one(rng, (2, 3)), strides=2, padding="same")(x)


def _pool(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    if min(x.shape[1:3]) < 4:
        return x
    return _one(rng, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D))(2)(x)


def _pad(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    padded = keras.layers.ZeroPadding2D(1)(x)
    return keras.layers.Cropping2D(((1, 0), (0, 1)))(padded)


def _up(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return x if x.shape[1] > 12 else keras.layers.UpSampling2D(2)(x)


def _merge(x: Any, rng: np.random.Generator, others: list[Any]) -> Any:
    import keras

    fitting = [other for other in others if tuple(other.shape) == tuple(x.shape) and other is not x]
    kinds = (keras.layers.Add, keras.layers.Add, keras.layers.Multiply, keras.layers.Concatenate,
             keras.layers.Subtract)  # fmt: skip
    other = fitting[-1] if fitting else keras.layers.Activation("tanh")(x)
    merged = _one(rng, kinds)()([x, other])
    return keras.layers.ReLU()(merged) if rng.random() < 0.4 else merged


def _activation(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return _one(
        rng,
        (
            keras.layers.Activation("sigmoid"), keras.layers.Activation("tanh"),
            keras.layers.LeakyReLU(0.2), keras.layers.ReLU(negative_slope=0.1),
            keras.layers.Softmax(), keras.layers.Activation("gelu"),
            keras.layers.Activation("silu"),
        ),
    )(x)  # fmt: skip


def _norm(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return _one(rng, (keras.layers.BatchNormalization(), keras.layers.Rescaling(0.7, 0.1)))(x)


def _conv1d(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.Conv1D(
        int(rng.integers(3, 9)), 3, padding=_one(rng, ("same", "causal")),
        activation=_one(rng, ACTIVATIONS),
    )(x)  # fmt: skip


def _conv1d_bn(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    x = keras.layers.Conv1D(6, 3, padding="same")(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))


def _depthwise1d(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.DepthwiseConv1D(3, padding="same", activation=_one(rng, ACTIVATIONS))(x)


def _pool1d(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    if x.shape[1] < 4:
        return x
    return _one(rng, (keras.layers.MaxPooling1D, keras.layers.AveragePooling1D))(2)(x)


def _dense(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.Dense(int(rng.integers(4, 12)), activation=_one(rng, ACTIVATIONS))(x)


def _dense_bn(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Dense(7)(x)))


def _dropout(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.Dropout(0.3)(x)


def _turned(x: Any, rng: np.random.Generator, _: Any) -> Any:
    import keras

    return keras.layers.Reshape((x.shape[2], x.shape[1]))(keras.layers.Permute((2, 1))(x))


Maker = Callable[[Any, np.random.Generator, list[Any]], Any]
IMAGE: tuple[Maker, ...] = (
    _conv2d, _conv2d, _conv_bn, _conv_bn, _depthwise, _separable, _transposed, _pool, _pad, _up,
    _merge, _merge, _activation, _norm, _dense, _dropout,
)  # fmt: skip
SEQUENCE: tuple[Maker, ...] = (
    _conv1d, _conv1d, _conv1d_bn, _depthwise1d, _pool1d, _merge, _activation, _norm, _dense,
    _turned, _dropout,
)  # fmt: skip
ROW: tuple[Maker, ...] = (_dense, _dense, _dense_bn, _merge, _activation, _norm, _dropout)
