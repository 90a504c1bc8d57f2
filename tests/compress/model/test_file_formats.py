"""What is no Keras model says so, and what to give instead: one error, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import (
    coupled_groups,
    distill,
    export,
    load_model,
    prune_channels,
    prune_weights,
    sensitivity_map,
)
from compress.core.errors import InputError
from compress.model.file_formats import (
    SAVED_MODEL,
    TFLITE,
    check_model_file,
    detect_foreign_model,
    require_inspectable,
)
from compress.shrinking.compression import compress_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folders and files by what they are; none of them is whole."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "saved_model.pb").touch()
    (tmp_path / "old" / "keras_metadata.pb").touch()
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "config.json").touch()
    (tmp_path / "unpacked" / "model.weights.h5").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    (tmp_path / "m.onnx").touch()
    (tmp_path / "m.pt").touch()
    return tmp_path


CASES = {
    "m.tflite": "m.tflite', a LiteRT file: a graph of operations in which no layers are left. Give "
    "the Keras model that it was made of",
    "no.tflite": "no.tflite', a LiteRT file",
    "saved": "saved', a SavedModel: a graph of operations in which no layers are left. Give the",
    "old": "old', a SavedModel of Keras 2: a graph .* Load it with tf_keras.models.load_model.*"
    "save it as .h5",
    "m.onnx": "m.onnx', an ONNX file: a graph",
    "m.pt": "m.pt', a PyTorch file. Build the model in Keras",
    "unpacked": "folder '.*unpacked', the inside of a .keras file. Put its files into a .zip",
    "empty": "a folder that holds saved_model.pb. Received: folder '.*empty' without it",
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_its_remedy(name: str, folder: Path) -> None:
    for call in (check_model_file, load_model):
        with pytest.raises(InputError, match=CASES[name]):
            call(folder / name)


@pytest.mark.parametrize("name", ["m.tflite", "saved"])
def test_every_public_call_refuses_it(
    name: str, folder: Path, small_cnn: Callable[..., Any]
) -> None:
    path, x, y = folder / name, np.zeros((8, 8, 8, 1), np.float32), np.arange(8) % 10
    calls: list[Callable[[], Any]] = [
        lambda: prune_channels(path, macs=0.5),
        lambda: prune_weights(path, (x, y), sparsity=0.5),
        lambda: coupled_groups(path),
        lambda: sensitivity_map(path, (x, y)),
        lambda: export(path, folder / "out.tflite"),
        lambda: distill(small_cnn(), path, (x, y)),
        lambda: compress_model(path, (x, y), out=folder / "run"),
        lambda: compress_model(path),
    ]
    for call in calls:
        with pytest.raises(InputError, match="must be a Keras model .*Received: '.*Give the Keras"):
            call()
    assert not (folder / "run").exists()


def test_what_a_path_is(folder: Path) -> None:
    found = {path.name: detect_foreign_model(path) for path in folder.iterdir()}
    assert {name: item.kind for name, item in found.items() if item} == {
        "saved": SAVED_MODEL, "old": SAVED_MODEL, "m.tflite": TFLITE,
    }  # fmt: skip


def test_what_can_be_looked_at(folder: Path) -> None:
    assert require_inspectable(folder / "m.tflite") == detect_foreign_model(folder / "m.tflite")
    for name, message in {
        "m.onnx": r"a \.tflite file or a SavedModel's folder. Received: .*an ONNX file. `pare",
        "empty": "a folder that holds saved_model.pb. Received: folder",
        "no.tflite": "A model file must exist",
    }.items():
        with pytest.raises(InputError, match=message):
            require_inspectable(folder / name)
    with pytest.raises(InputError, match="--profile must be of a Keras model. .*a LiteRT file: no"):
        require_inspectable(folder / "m.tflite", profile=True)
