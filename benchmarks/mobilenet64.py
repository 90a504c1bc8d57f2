"""MobileNetV2 of Keras at half its width, on Fashion-MNIST enlarged to 64 x 64 pixels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._stored import ROOT
from benchmarks.resnet20 import load_fashion
from compress.data import Dataset, Split
from compress.plan import TrainSettings

if TYPE_CHECKING:
    import keras

SIDE = 64
RECIPE = TrainSettings(
    epochs=7, optimizer="momentum", learning_rate=0.1, weight_decay=5e-3, augment=("flip",)
)
"""As the smaller net of its family in repair_nets.py is trained."""
MOMENTUM = 0.99
"""Of the batch normalizations; 0.999, Keras's here, does not follow a training as short as this."""
AT_ONCE = 5000


def enlarged(data: Dataset) -> Dataset:
    """Returns the data with images of 64 x 64 pixels, interpolated bilinearly; bytes stay bytes."""
    parts = {
        name: Split(_resized(part.x), part.y)
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    return replace(data, **parts)


def _resized(x: Any) -> Any:
    import tensorflow as tf

    made = np.empty((len(x), SIDE, SIDE, x.shape[-1]), np.uint8)
    for start in range(0, len(x), AT_ONCE):
        larger = tf.image.resize(x[start : start + AT_ONCE], (SIDE, SIDE))
        made[start : start + AT_ONCE] = np.rint(larger.numpy())
    return made


def build(classes: int = 10) -> keras.Model:
    """Builds `keras.applications.MobileNetV2(alpha=0.5)` for gray images, untrained.

    Reference:
        Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """
    import keras

    model = keras.applications.MobileNetV2(
        (SIDE, SIDE, 1), alpha=0.5, weights=None, classes=classes, name="mobilenet64"
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return model


def trained() -> tuple[keras.Model, Dataset]:
    """Returns the trained net, from runs/benchmarks or made where it is missing, and its data."""
    import keras

    from compress.core.device import setup
    from compress.model.io import load_model, save_model
    from compress.train import train

    data = enlarged(load_fashion())
    how = hashlib.sha256(f"{RECIPE!r} {MOMENTUM} {SIDE}".encode()).hexdigest()[:10]
    file = ROOT / "runs" / "benchmarks" / f"mobilenet64-{how}.keras"
    if not file.exists():
        keras.utils.set_random_seed(0)
        model = build()
        train(model, data, RECIPE, device=setup("cpu"), on_epoch=_told)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, file)
    return load_model(file), data


def _told(epoch: int, epochs: int, record: Any) -> None:
    print(f"mobilenet64: epoch {epoch} of {epochs}, {record.seconds:.0f} s", record.val, flush=True)
