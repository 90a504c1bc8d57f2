"""Shared fixtures: small real data, small models, one CPU device."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# before anything imports gRPC: see `search.study.storage.disable_fork_support`
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from compress.core.device import Device
from compress.data import Dataset, Preprocessing, Split, load_data

# a busy machine is no defect
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps tables of times out of the user's cache."""
    os.environ["PARETUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="session")
def cpu() -> Device:
    from compress.core.device import setup_device, silence_tensorflow

    silence_tensorflow()
    return setup_device("cpu")


@pytest.fixture
def blobs() -> Dataset:
    """Three Gaussian blobs in 4 dimensions: learnt in an instant, by anything."""
    rng = np.random.default_rng(0)
    centres = 3.0 * np.eye(3, 4)

    def part(count: int) -> Split:
        y = np.arange(count) % 3
        return Split((centres[y] + rng.normal(size=(count, 4))).astype(np.float32), y)

    return Dataset("blobs", part(240), part(60), part(60), ("a", "b", "c"), Preprocessing())


@pytest.fixture
def small_cnn() -> Callable[..., Any]:
    """Builds a CNN for digits with a first, two middle and a last kernel."""

    def build(seed: int = 0, softmax: str = "layer") -> Any:
        import keras

        keras.utils.set_random_seed(seed)
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(inputs)
        x = keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="mid")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name="bn")(x)
        x = keras.layers.ReLU(name="relu")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = keras.layers.Dense(32, activation="relu", name="hidden")(x)
        activation = "softmax" if softmax == "dense" else None
        x = keras.layers.Dense(10, activation=activation, name="last")(x)
        if softmax == "layer":
            x = keras.layers.Softmax(name="probabilities")(x)
        return keras.Model(inputs, x, name="small_cnn")

    return build
