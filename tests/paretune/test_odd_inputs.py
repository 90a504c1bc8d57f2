"""Data that do not fit a model, and records that were edited: one line that names the cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import paretune as pt
from search.cli import app

layers = keras.layers


def command(*words: object) -> str:
    """Run a command that is refused; return what it says, on one line."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2, (done.output, done.exception)
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("paretune: error: ")
    return said


def test_another_depth_of_images_without_labels(tmp_path: Path) -> None:
    keras.Sequential([
        keras.Input((16, 16, 1)), layers.Conv2D(8, 3), layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
    ]).save(tmp_path / "gray.keras")  # fmt: skip
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    said = command(
        "shrink", tmp_path / "gray.keras", "--data", tmp_path / "images", "--task", "unlabelled",
        "--macs", 0.6, "--no-train", "--normalize", "unit", "--out", tmp_path / "out",
    )  # fmt: skip
    assert (
        "must take inputs of the data's shape (16, 16, 3). Received: a model for (16, 16, 1)"
        in said
    )
    assert not (tmp_path / "out").exists()


def test_another_number_of_features_before_a_normalization() -> None:
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    scaled = layers.Normalization()
    scaled.adapt(x)
    model = keras.Sequential([
        keras.Input((6,)), scaled, layers.Dense(16, activation="relu"), layers.Dense(2),
    ])  # fmt: skip
    for data in (x[:, :5], (x[:, :5], x[:, :2])):
        with pytest.raises(
            pt.InputError, match=r"data's shape \(5,\). Received: a model for \(6,\)"
        ):
            pt.prune_channels(model, macs=0.5, data=data)


def strided() -> Any:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 7, strides=4, name="stem")(inputs)
    x = layers.Conv2D(8, 5, strides=4, name="second")(x)
    return keras.Model(
        inputs, layers.Dense(2, activation="softmax")(layers.GlobalMaxPooling2D()(x))
    )


def test_an_input_too_small_for_a_strided_stem(tmp_path: Path) -> None:
    model = strided()
    model.save(tmp_path / "net.keras")
    with pytest.raises(pt.InputError, match=r"Layer 'second' .*\(1, 1, 1, 8\).*input is too small"):
        pt.count_macs(model, (8, 8, 3))
    with pytest.raises(pt.InputError, match=r"Layer 'second' .*too small"):
        pt.prune_channels(model, macs=0.5, input_shape=(8, 8, 3))
    x = np.zeros((40, 8, 8, 3), np.float32)
    with pytest.raises(pt.InputError, match=r"Received: \(8, 8, 3\): .*Is the input too small"):
        pt.prune_channels(model, macs=0.5, scope="layer", data=x)
    with pytest.raises(pt.InputError, match="Is the input too small"):
        pt.bench(model, input_shape=(8, 8, 3), budget=0.1)
    assert "input is too small" in command(
        "inspect", tmp_path / "net.keras", "--input-shape", "8,8,3"
    )


@pytest.mark.slow
def test_a_renamed_key_in_a_stored_repair(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(16, activation="relu"),
        layers.Dense(2, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, 50, 10, verbose=0)
    out = tmp_path / "out"
    pt.compress_model(
        model, x, y, channels=0.6, sparsity=0, finetune_epochs=0, formats=["float32"],
        latency_budget=0.2, round_to=2, out=out,
    )  # fmt: skip
    (path,) = (out / "compressed").glob("*.json")
    record = json.loads(path.read_text())
    first = record["channels"]["repair"]["layers"][0]
    # a key of another version is left alone, one that is missing is named
    path.write_text(json.dumps(record | {"channels": {**record["channels"], "repair": {
        **record["channels"]["repair"], "layers": [{**first, "lines": 3}]}}}))  # fmt: skip
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    del first["rows"]
    path.write_text(json.dumps(record))
    said = command("report", out)
    assert "channels.repair.layers[0] must have the keys name, kind" in said
    assert "Received: none called 'rows'" in said
