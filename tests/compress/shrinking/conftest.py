"""What tests of `shrink` shrink."""

from __future__ import annotations

from typing import Any

import pytest

from compress.core.device import Device
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train import train


@pytest.fixture(scope="session")
def trained(digits: Dataset, cpu: Device) -> Any:
    """A small CNN that has learnt digits."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(12, 3, padding="same", activation="relu", name="first")(inputs)
    x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="mid")(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dense(32, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="net")
    settings = TrainSettings(epochs=12, batch_size=32, learning_rate=3e-3)
    assert train(model, digits, settings, device=cpu).val["accuracy"] > 0.9
    return model
