"""compress_model on models that answer at every position: one call, from arrays to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model
from compress.core.device import Device
from compress.measure.file_agreement import compute_outputs
from compress.measure.runtimes import prepare_session
from compress.plan import TrainSettings
from compress.train import train
from compress.train.dataset_loading import as_dataset

SIZE = 16


def scenes(count: int) -> tuple[Any, Any]:
    """Images with a dark and a bright box on noise, and which pixel is of which."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 0.2, (count, SIZE, SIZE, 1)).astype(np.float32)
    y = np.zeros((count, SIZE, SIZE), np.uint8)
    for image, labels in zip(x, y, strict=True):
        for shade in (1, 2):
            (high, wide), (top, left) = rng.integers(4, 8, 2), rng.integers(0, SIZE - 8, 2)
            image[top : top + high, left : left + wide] += shade * 1.5
            labels[top : top + high, left : left + wide] = shade
    return x, y


def words(count: int) -> tuple[Any, Any]:
    """Sequences of 10 numbers below 20; each place is tagged by what stands before it."""
    x = np.random.default_rng(0).integers(20, size=(count, 10))
    before = np.roll(x, 1, 1)
    before[:, 0] = 0
    return x.astype(np.float32), (x + before) % 3


def unet(ends: Any) -> Any:
    import keras
    from keras import layers

    def block(h: Any, width: int) -> Any:
        h = layers.Conv2D(width, 3, padding="same", use_bias=False)(h)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.8)(h))

    given = keras.Input((SIZE, SIZE, 1))
    high = block(given, 8)
    low = block(layers.MaxPooling2D()(high), 16)
    up = layers.Conv2DTranspose(8, 2, strides=2)(low)
    joined = block(layers.Concatenate()([up, high]), 8)
    return keras.Model(given, ends(joined), name="unet")


def tagger() -> Any:
    import keras
    from keras import layers

    given = keras.Input((10,))
    h = layers.Embedding(20, 16)(given)
    h = layers.Conv1D(32, 3, padding="same", activation="relu")(h)
    h = layers.Conv1D(32, 1, activation="relu")(h)
    return keras.Model(given, layers.Dense(3, activation="softmax")(h), name="tagger")


def autoencoder() -> Any:
    import keras
    from keras import layers

    given = keras.Input((SIZE, SIZE, 1))
    h = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(given)
    h = layers.Conv2D(8, 3, padding="same", activation="relu")(h)
    h = layers.Conv2DTranspose(16, 2, strides=2, activation="relu")(h)
    return keras.Model(given, layers.Conv2D(1, 3, padding="same")(h), name="autoencoder")


def case(kind: str) -> tuple[Any, Any]:
    """Returns a model and what it learns from."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x, y = scenes(400)
    if kind == "segmentation":
        return unet(layers.Conv2D(3, 1, activation="softmax")), (x, y)
    if kind == "masks":
        return unet(layers.Conv2D(1, 1, activation="sigmoid")), (x, y > 0)
    if kind == "regression":
        return unet(layers.Conv2D(1, 1)), (x, y.astype(np.float32))
    if kind == "tagging":
        return tagger(), words(1500)
    return autoencoder(), x


def truth(kind: str, data: Any) -> Any:
    return data.test.x if kind == "reconstruction" else data.test.y


def by_hand(kind: str, y: Any, scores: Any) -> float:
    if kind in ("segmentation", "tagging"):
        said = scores.argmax(-1)
        if kind == "tagging":
            return float((said == y).mean())
        shares = [((said == c) & (y == c)).sum() / ((said == c) | (y == c)).sum() for c in range(3)]
        return float(np.mean(shares))
    if kind == "masks":
        said, y = scores > 0.5, y > 0
        return float((said & y).sum() / (said | y).sum())
    about = y.mean(0) if kind == "reconstruction" else y.mean()
    return float(1 - np.square(scores - y).sum() / np.square(y - about).sum())


@pytest.mark.parametrize(
    ("kind", "main"),
    [
        pytest.param("segmentation", "mean_iou", marks=pytest.mark.slow),
        pytest.param("masks", "mean_iou", marks=pytest.mark.matrix),
        pytest.param("regression", "r2", marks=pytest.mark.matrix),
        pytest.param("tagging", "accuracy", marks=pytest.mark.slow),
        pytest.param("reconstruction", "r2", marks=pytest.mark.slow),
    ],
)
def test_from_arrays_to_the_report(kind: str, main: str, cpu: Device, tmp_path: Path) -> None:
    model, given = case(kind)
    asked = {"task": kind} if kind == "reconstruction" else {}  # the others show by themselves
    data = as_dataset(given, model=model, testing=True, **asked)
    assert data.kind == kind
    settings = TrainSettings(epochs=8, batch_size=32, learning_rate=1e-2)
    learnt = train(model, data, settings, device=cpu).val
    assert learnt[main] > data.task.chance(data.labels(data.val)) + 0.3
    result = compress_model(
        model, given, channels=0.6, finetune_epochs=1, batch_size=32, sparsity=0.3,
        latency_budget=0.5, round_to=2, formats=["float32", "int8"], out=tmp_path / "out", **asked,
    )  # fmt: skip
    assert result.report.main == main
    assert result.report.kind == kind
    plain = result.files["float32"]
    expected = by_hand(
        kind, truth(kind, data), compute_outputs(prepare_session(plain), [data.inputs("test")])[0]
    )
    for row in result.report.rows:
        quality = row.artifact.test[main]
        assert quality > data.task.chance(data.labels(data.test)) + 0.2
        assert row.artifact.agreement > 0.9
        ends = result.report.interval(row, main)
        assert ends is not None
        assert ends[0] <= quality <= ends[1]
        if row.artifact.file == str(plain.relative_to(result.folder)):
            assert quality == pytest.approx(expected, abs=1e-4)
    small = result.report.compressed[0]
    assert "channels" in small.to_json()
    assert f"--task {kind}" in small.command
    page = (result.folder / "report.html").read_text("utf-8")
    assert f"{data.num_classes} {data.task.noun}" in page
    assert f"; {len(data.train):,} train, {len(data.val)} val, {len(data.test)} test." in page
