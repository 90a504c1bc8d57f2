"""Writes model files with tf_keras (Keras 2) and what they compute; in a process of its own.

python legacy_files.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers


def net(kind: str) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="block/bn")(layers.Conv2D(8, 3, name="conv")(inputs))
    if kind == "convolutions":
        x = layers.DepthwiseConv2D(3, name="depthwise")(x)
        x = layers.SeparableConv2D(4, 1, name="separable")(x)
        x = layers.Conv2DTranspose(4, 2, name="transposed")(layers.ReLU(6.0)(x))
    elif kind == "recurrent":
        x = layers.GRU(4, return_sequences=True)(layers.Reshape((-1, 8))(x))
        x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    elif kind == "operation":
        x = tf.nn.relu(x)
    elif kind == "lambda":
        x = layers.Lambda(lambda t: t * 2, name="doubled")(x)
    elif kind == "sequential":
        return keras.Sequential([
            layers.Conv2D(4, 3, input_shape=(8, 8, 3), name="conv"),
            layers.LeakyReLU(alpha=0.2, name="leaky"),
            layers.Flatten(name="flat"),
            layers.Dense(4, activation="softmax", name="out"),
        ])  # fmt: skip
    elif kind == "hard":
        x = layers.LSTM(4, recurrent_activation="hard_sigmoid", name="cells")(
            layers.Reshape((-1, 8))(x)
        )
    elif kind == "attention":
        x = layers.Reshape((-1, 8))(x)
        x = layers.MultiHeadAttention(2, 4, name="heads")(x, x)
    return keras.Model(inputs, layers.Dense(4, name="out")(layers.Flatten()(x)))


def main() -> None:
    folder = Path(sys.argv[1])
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    outputs = {"x": x}
    for kind in (
        "convolutions", "recurrent", "sequential", "operation", "lambda", "hard", "attention",
    ):  # fmt: skip
        model = net(kind)
        model.save(folder / f"{kind}.h5")
        outputs[kind] = model.predict(x, verbose=0)
    model.save(folder / "two.keras")
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main()
