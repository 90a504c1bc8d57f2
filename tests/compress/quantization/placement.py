"""Prints after which layers tfmot rounds what passes; in a process of its own, on Keras 2.

python -m tests.compress.quantization.placement
"""

from __future__ import annotations

import json
import os
from typing import Any


def net(keras: Any) -> Any:
    """What convolutional networks are made of, for either Keras."""
    layers = keras.layers
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn1")(x)
    x = short = layers.ReLU(name="relu1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    x = layers.BatchNormalization(name="bn2")(x)
    x = layers.ReLU(6.0, name="relu2")(x)
    x = layers.Conv2D(8, 1, use_bias=False, name="conv2")(x)
    x = layers.BatchNormalization(name="bn3")(x)
    x = layers.Add(name="sum")([short, x])
    x = layers.ReLU(name="relu3")(x)
    x = layers.MaxPooling2D(name="most")(x)
    x = layers.Conv2D(8, 3, activation="relu", name="conv3")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x), name="net")


def main() -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_model_optimization as tfmot
    import tf_keras

    made = tfmot.quantization.keras.quantize_model(net(tf_keras))
    rounded = []
    for layer in made.layers:
        if type(layer).__name__ == "QuantizeLayer":
            rounded.append("image")
        activations = getattr(layer, "_quantize_activations", ())
        # others are there, and do nothing: what they stand for is fused with what follows
        works = [part for part in activations
                 if part._should_pre_quantize() or part._should_post_quantize()]  # fmt: skip
        if works or getattr(layer, "_output_quantizers", ()):
            rounded.append(layer.layer.name)
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
