"""The search space of run_front.py, for every way and every checkout.

Images: a chain of convolutions. Tables: a chain of dense layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WIDTHS = (8, 16, 24, 32, 48)
UNITS = (16, 32, 64, 128, 256)


def build_net(trial: Any, shape: Any, classes: int, keras: Any) -> Any:
    """Build a candidate: convolutions, some separable, some pooled, then global pooling.

    Args:
        trial: Optuna's trial.
        shape: Of the images, or (columns,).
        classes: Number of classes.
        keras: Keras 3, or tf_keras.
    """
    layers = keras.layers
    inputs = keras.Input(shape)
    if len(shape) == 1:
        x = inputs
        for block in range(trial.suggest_int("blocks", 1, 4)):
            x = layers.Dense(trial.suggest_categorical(f"units{block}", UNITS), use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return keras.Model(inputs, layers.Softmax()(layers.Dense(classes)(x)))
    x = layers.Conv2D(trial.suggest_categorical("stem", WIDTHS), 3, padding="same", use_bias=False)(
        inputs
    )
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for block in range(trial.suggest_int("blocks", 1, 4)):
        filters = trial.suggest_categorical(f"filters{block}", WIDTHS)
        kernel = trial.suggest_categorical(f"kernel{block}", (3, 5))
        if trial.suggest_categorical(f"separable{block}", (False, True)):
            x = layers.DepthwiseConv2D(kernel, padding="same", use_bias=False)(x)
            kernel = 1
        x = layers.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        if trial.suggest_categorical(f"pool{block}", (False, True)):
            x = layers.MaxPooling2D(padding="same")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Softmax()(layers.Dense(classes)(x)))


baseline = {
    "stem": 16, "blocks": 3,
    **{f"{name}{block}": value for block in range(3)
       for name, value in {"filters": 32, "kernel": 3, "separable": False,
                           "pool": block < 2, "units": 128}.items()},
}  # fmt: skip


def net(trial: Any, data: Any) -> Any:
    """Build a candidate of the search."""
    import keras

    return build_net(trial, data.input_shape, data.task.outputs, keras)


def count_net_macs(model: Any) -> float:
    """Count the multiply-accumulates of a candidate's kernels, in any Keras."""
    total = 0.0
    for layer in model.layers:
        if type(layer).__name__ in ("Conv2D", "DepthwiseConv2D", "Dense"):
            kernel = layer.get_weights()[0]
            places = np.prod(tuple(layer.output.shape)[1:-1]) if kernel.ndim == 4 else 1
            total += float(kernel.size * places)
    return total
