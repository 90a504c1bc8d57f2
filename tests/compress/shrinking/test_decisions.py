"""What files decided: confusion against scikit-learn, examples against the arrays."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data import Dataset
from compress.report.live.page import build_file_panels
from compress.run.compressed_model import read_decisions
from compress.run.directory import RunFolder
from compress.shrinking.compression import EXAMPLES, write_decisions
from compress.shrinking.file_evaluation import save_decisions
from tests.compress.report.test_report import artifact


@pytest.fixture
def written(digits: Dataset, tmp_path: Path) -> tuple[RunFolder, np.ndarray, np.ndarray]:
    folder, rng = RunFolder(tmp_path / "run"), np.random.default_rng(0)
    labels = np.asarray(digits.test.y)
    dense, small = labels.copy(), labels.copy()
    dense[:5] = (dense[:5] + 1) % 10
    small[3:20] = (small[3:20] + 2) % 10
    files = [artifact("m", "dense", "float32", 0.9, 10), artifact("m", "pruned", "int8", 0.8, 5)]
    for item, decided in zip(files, (dense, small), strict=True):
        scores = rng.random((len(labels), 10))
        scores[np.arange(len(labels)), decided] = 2.0
        save_decisions(folder, item.id, scores, digits, 0.0)
    write_decisions(folder, files, digits)
    return folder, dense, small


def test_what_is_written(
    digits: Dataset, written: tuple[RunFolder, np.ndarray, np.ndarray]
) -> None:
    folder, dense, small = written
    found = read_decisions(folder.get_decisions_path("m"))
    assert found is not None
    assert [path.name for path in folder.decisions.iterdir()] == ["m.json"]
    labels = np.asarray(digits.test.y)
    file = found["files"]["m-p80.int8"]
    np.testing.assert_array_equal(file["confusion"], confusion_matrix(labels, small))
    assert file["differ"] == int((dense != small).sum())
    assert len(file["examples"]) == EXAMPLES
    # what was lost comes first, and each is what it says
    for item in file["examples"]:
        place = item["place"]
        assert (item["label"], item["before"], item["after"]) == (
            labels[place], dense[place], small[place],
        )  # fmt: skip
        assert item["before"] == item["label"]
        raw = base64.b64decode(item["picture"].partition(",")[2])
        image = np.asarray(Image.open(io.BytesIO(raw)), float)
        own = np.asarray(digits.test.x[place], float)[..., 0]
        assert np.corrcoef(image.ravel(), own.ravel())[0, 1] > 0.999
    panels = [*build_file_panels(found, "m-p80.int8")]
    assert [panel["kind"] for panel in panels] == ["matrix", "examples"]
    assert [panel["kind"] for panel in build_file_panels(found, "m.float32")] == ["matrix"]
    assert list(build_file_panels(None, "m.float32")) == []


def test_yes_and_no_by_the_bound(digits: Dataset, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    parts = {
        name: replace(
            getattr(digits, name), y=(np.asarray(getattr(digits, name).y) > 4).astype(int)
        )
        for name in ("train", "val", "test")
    }
    data = replace(digits, **parts, kind="binary", class_names=("low", "high"))
    scores = np.linspace(-1, 1, len(data.test))[:, None]
    item = artifact("m", "dense", "float32", 0.9, 10)
    save_decisions(folder, item.id, scores, data, 0.25)
    write_decisions(folder, [item], data)
    found = read_decisions(folder.get_decisions_path("m"))
    assert found is not None
    np.testing.assert_array_equal(
        found["files"]["m.float32"]["confusion"],
        confusion_matrix(np.asarray(data.test.y), scores[:, 0] > 0.25),
    )


def test_other_tasks_have_none(digits: Dataset, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    item = artifact("m", "dense", "float32", 0.9, 10)
    others: Any = SimpleNamespace(kind="regression", num_classes=1)
    save_decisions(folder, item.id, np.zeros((3, 1)), others, 0.0)
    many: Any = SimpleNamespace(kind="multiclass", num_classes=1000)
    save_decisions(folder, item.id, np.zeros((3, 1000)), many, 0.0)
    write_decisions(folder, [item], digits)
    assert read_decisions(folder.get_decisions_path("m")) is None


def test_damaged_ones_are_refused(written: tuple[RunFolder, np.ndarray, np.ndarray]) -> None:
    folder = written[0]
    path = folder.get_decisions_path("m")
    content = read_json(path)
    content["files"]["m-p80.int8"]["examples"][0]["picture"] = "https://x/y.png"
    write_json(path, content)
    found = read_decisions(path)
    assert found is not None
    assert found["files"]["m-p80.int8"]["examples"][0]["picture"] == ""
    content["files"]["m-p80.int8"]["examples"][0]["after"] = 12
    write_json(path, content)
    with pytest.raises(InputError, match="must hold decisions among 10 classes"):
        read_decisions(path)
