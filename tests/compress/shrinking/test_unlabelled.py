"""A model is shrunk on examples without labels: what it answers stands for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset, load_data
from compress.model.io import save_model
from compress.shrinking.compression import compress_model
from compress.train.dataset_loading import as_dataset
from search.cli import app

QUICK = {"finetune_epochs": 0, "formats": ["float32"], "latency_budget": 0.2, "sparsity": 0.0}


@pytest.fixture
def model(small_cnn: Any, digits: Dataset, cpu: Device, tmp_path: Path) -> Path:
    net = small_cnn()
    net.compile("adam", "sparse_categorical_crossentropy")
    net.fit(digits.train.x.astype(np.float32) / 16, digits.train.y, epochs=4, verbose=0)
    save_model(net, tmp_path / "net.keras")
    return tmp_path / "net.keras"


def photos(place: Path, digits: Dataset, count: int) -> Path:
    for index, image in enumerate(digits.train.x[:count, :, :, 0]):
        folder = place / ("some" if index % 3 else "more")
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.rint(image * 255 / 16).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{index}.png")
    return place


@pytest.mark.slow
def test_a_folder_of_images_is_enough(model: Path, digits: Dataset, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", digits, 300)
    words = ["compress", str(model), "--data", str(folder), "--task", "unlabelled",
             "--normalize", "unit", "--channels", "0.6x", "--sparsity", "0",
             "--finetune-epochs", "0", "--formats", "float32", "--latency-budget", "0.2",
             "--out", str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    found = {row["variant"]: row["test"] for row in report["files"]}
    # the model agrees with itself; a smaller one nearly always, being repaired
    assert found["dense"] == {"agreement": 1.0}
    assert 0.5 < found["pruned"]["agreement"] <= 1.0
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Agreement" in page
    assert "Accuracy" not in page


def test_the_answers_are_the_models(model: Path, digits: Dataset) -> None:
    import keras

    net = keras.models.load_model(model)
    x = digits.train.x[:200].astype(np.float32) / 16
    data = as_dataset(x, model=net, task="unlabelled", testing=True)
    assert data.kind == "unlabelled"
    assert [len(part) for part in (data.train, data.val, data.test)] == [136, 24, 40]
    for part in (data.train, data.val, data.test):
        np.testing.assert_allclose(part.y, net.predict(part.x, verbose=0), atol=1e-6)


def test_labels_that_there_are_are_not_looked_at(model: Path, tmp_path: Path) -> None:
    import keras

    net = keras.models.load_model(model)
    x = np.random.default_rng(0).uniform(size=(60, 8, 8)).astype(np.float32)
    both, alone = tmp_path / "both.npz", tmp_path / "alone.npz"
    np.savez(both, x_train=x, y_train=np.full(60, 77), class_names=["a"])
    np.savez(alone, x_train=x)
    first, second = (
        as_dataset(str(path), model=net, task="unlabelled", normalize="none")
        for path in (both, alone)
    )
    np.testing.assert_array_equal(first.train.y, second.train.y)
    assert first.class_names == second.class_names == tuple("0123456789")


@pytest.mark.slow
def test_in_python_x_is_enough_and_training_is_taught(
    model: Path, digits: Dataset, tmp_path: Path
) -> None:
    x = digits.train.x[:400].astype(np.float32) / 16
    found = compress_model(
        model, x, channels=0.5, out=tmp_path / "out", **{**QUICK, "finetune_epochs": 2}
    )
    rows = {row.artifact.variant: row.artifact.test["agreement"] for row in found.report.rows}
    assert rows["dense"] == 1.0
    assert rows["pruned"] > 0.5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "normalize must be given where labels do not tell"),
        ({"normalize": "unit", "model": None}, "must be for a model that exists"),
    ],
)
def test_what_cannot_be_found_without_labels_is_asked_for(
    how: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.zeros((60, 8, 8), np.float32))
    with pytest.raises(InputError, match=message):
        as_dataset(str(tmp_path / "x.npz"), task="unlabelled", **{"model": model, **how})


def test_a_remedy_is_named(tmp_path: Path, digits: Dataset) -> None:
    np.savez(tmp_path / "x.npz", x_train=np.zeros((60, 8, 8), np.float32))
    with pytest.raises(InputError, match="give --task unlabelled"):
        load_data(str(tmp_path / "x.npz"))
    (tmp_path / "p").mkdir()
    folder = photos(tmp_path / "p" / "photos", digits, 9)
    (folder / "more").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="give --task unlabelled"):
        load_data(str(folder))
