"""What tests of `shrink` shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from compress.core.device import Device
from compress.data import Dataset
from compress.plan import TrainSettings
from compress.train import train


def learnt(
    data: Dataset, device: Device, filters: Sequence[int], hidden: int = 0, epochs: int = 12
) -> Any:
    """Return a CNN, trained on digits, with the layers "first", "mid" and perhaps "hidden"."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    for name, width in zip(("first", "mid"), filters, strict=True):
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name=name)(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    if hidden:
        x = keras.layers.Dense(hidden, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="net")
    settings = TrainSettings(epochs=epochs, batch_size=32, learning_rate=3e-3)
    assert train(model, data, settings, device=device).val["accuracy"] > 0.9
    return model


@pytest.fixture(scope="session")
def trained(digits: Dataset, cpu: Device) -> Any:
    """A small CNN."""
    return learnt(digits, cpu, (12, 24), 32)


@pytest.fixture(scope="session")
def wide(digits: Dataset, cpu: Device) -> Any:
    """A net whose layers take longer than what a run costs beside them."""
    return learnt(digits, cpu, (64, 96), epochs=5)
