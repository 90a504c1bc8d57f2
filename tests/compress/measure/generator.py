"""Random networks of what multiplies, for comparing counts: images, sequences, vectors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

Rng = np.random.Generator


def number(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def convolution(rng: Rng, x: Any) -> Any:
    # no groups: Keras wraps grouped ones in a compiled function that tf2onnx does not know
    strided = bool(rng.integers(2))
    return layers.Conv2D(
        number(rng, 1, 12),
        (number(rng, 1, 3), number(rng, 1, 3)),
        strides=number(rng, 1, 2) if strided else 1,
        dilation_rate=1 if strided else number(rng, 1, 2),
        padding=str(rng.choice(["same", "valid"])),
        use_bias=bool(rng.integers(2)),
    )(x)


def depthwise(rng: Rng, x: Any) -> Any:
    return layers.DepthwiseConv2D(
        number(rng, 1, 3), number(rng, 1, 2), "same", depth_multiplier=number(rng, 1, 3)
    )(x)


def separable(rng: Rng, x: Any) -> Any:
    return layers.SeparableConv2D(
        number(rng, 1, 7), number(rng, 1, 3), padding="same", depth_multiplier=number(rng, 1, 2)
    )(x)


def transposed(rng: Rng, x: Any) -> Any:
    size = number(rng, 1, 3)
    # a stride above the kernel's size makes tf2onnx write negative pads, which ONNX forbids
    return layers.Conv2DTranspose(number(rng, 1, 6), size, min(size, number(rng, 1, 2)), "same")(x)


def residual(rng: Rng, x: Any) -> Any:
    y = layers.Conv2D(x.shape[-1], 3, padding="same")(x)
    y = layers.BatchNormalization()(y)
    return layers.ReLU()(layers.Add()([x, y]))


def excited(rng: Rng, x: Any) -> Any:
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(number(rng, 1, 4), 1, activation="relu")(gate)
    return layers.Multiply()([x, layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)])


def nested(rng: Rng, x: Any) -> Any:
    """A model inside, called twice: its layers count at each call."""
    inner = keras.Input(x.shape[1:])
    body = keras.Model(inner, layers.Dense(x.shape[-1], activation="tanh")(inner))
    return body(body(x))


IMAGE = {
    "convolution": convolution,
    "depthwise": depthwise,
    "separable": separable,
    "transposed": transposed,
    "residual": residual,
    "excited": excited,
    "nested": nested,
    "raw": lambda rng, x: ops.conv(
        x, rng.normal(size=(2, 2, x.shape[-1], 3)).astype(np.float32), padding="valid"
    ),
    "pooled": lambda rng, x: layers.AveragePooling2D(2, 1, "same")(x),
    "joined": lambda rng, x: layers.Concatenate()([x, layers.Conv2D(2, 1)(x)]),
    "padded": lambda rng, x: layers.ZeroPadding2D(1)(x),
    "up": lambda rng, x: layers.UpSampling2D(2)(x),
}


def attended(rng: Rng, x: Any) -> Any:
    return layers.MultiHeadAttention(number(rng, 1, 3), number(rng, 1, 4))(x, x)


def grouped(rng: Rng, x: Any) -> Any:
    return layers.GroupQueryAttention(number(rng, 1, 4), 4, 2)(x, x)


def by_hand(rng: Rng, x: Any) -> Any:
    q, k, v = (layers.Dense(number(rng, 3, 3))(x) for _ in range(3))
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 2, 1))))
    return ops.einsum("bij,bjk->bik", scores, v)


def folded(rng: Rng, x: Any) -> Any:
    """Positions become examples, and are examples' positions again."""
    steps, units = x.shape[1], number(rng, 1, 6)
    rows = layers.Dense(units)(ops.reshape(x, (-1, x.shape[2])))
    return ops.reshape(rows, (-1, steps, units))


SEQUENCE = {
    "dense": lambda rng, x: layers.Dense(number(rng, 1, 7), activation="relu")(x),
    "einsum": lambda rng, x: layers.EinsumDense("abc,cd->abd", (x.shape[1], number(rng, 1, 6)))(x),
    "conv1d": lambda rng, x: layers.Conv1D(number(rng, 1, 6), 3, padding="same")(x),
    "separable1d": lambda rng, x: layers.SeparableConv1D(number(rng, 1, 6), 3, padding="same")(x),
    "attended": attended,
    "grouped": grouped,
    "by hand": by_hand,
    "folded": folded,
    "luong": lambda rng, x: layers.Attention()([x, x]),
    "normalized": lambda rng, x: layers.LayerNormalization()(x),
    "nested": nested,
}


def of_several(seed: int) -> tuple[Any, list[str]]:
    """Returns a random network of two inputs and two or three outputs, and its templates."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    image = keras.Input((number(rng, 6, 10), number(rng, 6, 10), number(rng, 1, 4)), name="image")
    steps = keras.Input((number(rng, 3, 6), number(rng, 2, 5)), name="steps")
    used, x, y = [], image, steps
    for _ in range(number(rng, 1, 2)):
        name = str(rng.choice(list(IMAGE)))
        if min(x.shape[1:3]) >= 5 or name not in ("convolution", "raw"):
            used.append(name)
            x = IMAGE[name](rng, x)
    for _ in range(number(rng, 1, 2)):
        name = str(rng.choice(list(SEQUENCE)))
        used.append(name)
        y = SEQUENCE[name](rng, y)
    joined = layers.Concatenate()(
        [layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling1D()(y)]
    )
    heads = {
        "class": layers.Dense(number(rng, 1, 5), activation="softmax", name="class")(joined),
        "pixels": layers.Conv2D(number(rng, 1, 4), 1, name="pixels")(x),
    }
    if rng.integers(2):
        heads["tags"] = layers.Dense(number(rng, 1, 4), name="tags")(y)
    outputs = list(heads.values()) if rng.integers(2) else heads
    return keras.Model([image, steps], outputs), used


def network(seed: int) -> tuple[Any, list[str]]:
    """Returns a random network and the names of the templates in it."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    inputs = x = keras.Input((number(rng, 6, 12), number(rng, 6, 12), number(rng, 1, 8)))
    used = []
    for _ in range(number(rng, 1, 4)):
        name = str(rng.choice(list(IMAGE)))
        if min(x.shape[1:3]) >= 5 or name not in ("convolution", "raw"):
            used.append(name)
            x = IMAGE[name](rng, x)
        if min(x.shape[1:3]) > 24:
            x = layers.MaxPooling2D(2)(x)
    x = layers.Reshape((-1, x.shape[-1]))(x)
    for _ in range(number(rng, 0, 3)):
        name = str(rng.choice(list(SEQUENCE)))
        used.append(name)
        x = SEQUENCE[name](rng, x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(number(rng, 1, 9))(x)), used
