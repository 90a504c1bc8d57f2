"""Spaces as users write them, good and bad."""

from __future__ import annotations

from typing import Any

from compress.data import Dataset
from search.spaces import head


def baseline(data: Dataset) -> dict[str, Any]:
    return {"depth": 1, "width1": 8 * data.num_classes}


def build(trial: Any, data: Dataset) -> Any:
    """8 widths for each of 1 or 2 layers: 8 + 8 * 8 architectures."""
    import keras

    inputs = keras.Input(data.input_shape)
    x = keras.layers.Flatten()(inputs)
    for index in range(1, trial.suggest_int("depth", 1, 2) + 1):
        x = keras.layers.Dense(trial.suggest_int(f"width{index}", 8, 64, step=8))(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(inputs, head(x, data.task))


def sometimes(trial: Any, data: Dataset) -> Any:
    trial.suggest_float("rate", 0.0, 1.0)
    if trial.suggest_categorical("fails", (False, True)):
        raise ArithmeticError("not today")
    return build(trial, data)


def one_argument(trial: Any) -> Any: ...


def number(trial: Any, data: Dataset) -> Any:
    return 3


def unbuilt(trial: Any, data: Dataset) -> Any:
    import keras

    return keras.Sequential([keras.layers.Dense(3)])


def misfit(trial: Any, data: Dataset) -> Any:
    import keras

    return keras.Sequential([keras.Input(data.input_shape), keras.layers.Dense(7)])


not_callable = 3
