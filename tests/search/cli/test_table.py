"""A table and records on the command line, from the file to the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from search.cli import app
from tests.compress.data.test_tfrecords import write
from tests.search.test_run import paretune

NAMES = np.array(["ant", "bee", "cow"])
Y = np.arange(300) % 3
X = (3.0 * np.eye(3, 4)[Y] + np.random.default_rng(0).normal(size=(300, 4))).round(3)


def table(folder: Path) -> None:
    """Four columns of numbers, names in a fifth, parts in the last."""
    parts = np.array(["train", "train", "train", "val", "test"])[np.arange(300) // 3 % 5]
    with open(folder / "table.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["a", "b", "c", "d", "kind", "split"])
        writer.writerows([*row, name, part]
                         for row, name, part in zip(X, NAMES[Y], parts, strict=True))  # fmt: skip


def records(folder: Path) -> None:
    write(
        folder / "table.tfrecord",
        [{"x": x.astype(np.float32), "kind": y} for x, y in zip(X, Y, strict=True)],
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(16, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="last")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=20, batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    table(tmp_path)
    records(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", ["table.csv", pytest.param("table.tfrecord", marks=pytest.mark.slow)]
)
def test_compress(source: str, folder: Path) -> None:
    words = [
        "compress", "model.keras", "--data", source, "--label", "kind", "--normalize", "none",
        "--channels", "0.5x", "--round-to", "1", "--sparsity", "0.5", "--finetune-epochs", "0",
        "--formats", "float32", "--latency-budget", "0.2", "--out", "out",
    ]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    about = json.loads((folder / "out" / "data.json").read_text())
    classes = ["ant", "bee", "cow"] if source == "table.csv" else ["0", "1", "2"]
    assert about["class_names"] == classes
    if source == "table.csv":
        assert about["counts"] == {"train": [60] * 3, "val": [20] * 3, "test": [20] * 3}
    stored: dict[str, Any] = json.loads((folder / "out" / "plan.json").read_text())
    assert stored["plan"]["data"]["label"] == ["kind"]
    assert "--label kind" in stored["shown"]["command"]
    assert list((folder / "out" / "exports").glob("*.float32.tflite"))
    assert "kind" not in (folder / "out" / "report.html").read_text("utf-8").split("--label")[0]
    # the same command finds its work done
    assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "source"),
    [
        ("search", "table.tfrecord"),
        pytest.param("run", "table.csv", marks=pytest.mark.matrix),
    ],
)
def test_search_and_run(command: str, source: str, folder: Path) -> None:
    words = [
        command, "--data", source, "--label", "kind", "--space", "mlp", "--trials", "1",
        "--epochs", "2", "--workers", "1", "--out", "out",
    ]  # fmt: skip
    if command == "run":
        words += ["--finetune-epochs", "4", "--formats", "float32", "--latency-budget", "0.2"]
    done = paretune(*words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "out" / "report.html").is_file()
