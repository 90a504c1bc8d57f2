"""A search space as a user writes one: nothing of it is known but by asking and building.

`--space benchmarks._own_space:net`.
"""

from __future__ import annotations

from typing import Any

from compress.data import Dataset

WIDTHS = (8, 16, 24, 32, 48)

baseline = {
    "stem": 16, "blocks": 3, "global_pool": False, "units": 64,
    **{f"{name}{block}": value for block in range(3)
       for name, value in {"filters": 24, "kernel": 3, "separable": False,
                           "pool": block < 2}.items()},
}  # fmt: skip


def net(trial: Any, data: Dataset) -> Any:
    """Convolutions, some separable, some pooled; then a dense layer or global pooling."""
    import keras

    layers = keras.layers
    inputs = keras.Input(data.input_shape)
    x = layers.Conv2D(trial.suggest_categorical("stem", WIDTHS), 3, padding="same")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for block in range(trial.suggest_int("blocks", 1, 4)):
        filters = trial.suggest_categorical(f"filters{block}", WIDTHS)
        kernel = trial.suggest_categorical(f"kernel{block}", (3, 5))
        separable = trial.suggest_categorical(f"separable{block}", (False, True))
        kind = layers.SeparableConv2D if separable else layers.Conv2D
        x = kind(filters, kernel, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        if trial.suggest_categorical(f"pool{block}", (False, True)):
            x = layers.MaxPooling2D(padding="same")(x)
    if trial.suggest_categorical("global_pool", (False, True)):
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Flatten()(x)
        units = trial.suggest_categorical("units", (16, 32, 64, 128))
        x = layers.Dense(units, activation="relu")(x)
    logits = layers.Dense(data.task.outputs, dtype="float32")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32")(logits))
