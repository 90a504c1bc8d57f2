"""int8 files of models that TensorFlow's converter does not calibrate: it crashes on loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import compress
from compress.core.errors import RunFailed
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.runtimes import prepare_session
from compress.report import load_report
from search.cli import app

L = keras.layers


def sequences(count: int = 200) -> tuple[Any, Any]:
    """Noise around a level; whether that is above 0 is the class."""
    rng = np.random.default_rng(0)
    y = np.arange(count) % 2
    x = rng.normal(size=(count, 6, 3)) + (2.0 * y - 1.0)[:, None, None]
    return x.astype(np.float32), y


def recurrent(layer: Any, width: int = 16) -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 3))
    x = layer(L.Dense(width, activation="relu", name="before")(inputs))
    x = L.Dense(width, activation="relu", name="behind")(x)
    return keras.Model(inputs, L.Dense(2, activation="softmax", name="last")(x), name="loop")


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.slow)])
def test_int8_is_made_all_the_same_and_says_how(kind: str, tmp_path: Path) -> None:
    x, _ = sequences()
    layer = getattr(L, kind)(8, name="steps")
    model = recurrent(layer)
    (file,) = compress.export(model, tmp_path / "m.tflite", format="int8", data=x)
    assert file.format == "int8"
    told = " ".join(file.notes)
    assert "converter crashed on model 'loop' (int8)" in told
    assert "calibrated by paretune's own rules instead" in told
    assert f"in floats: 1 x {kind} (steps)" in told
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["files"]["m.tflite"]["notes"] == list(file.notes)
    # int8 in and out, and int8 kernels between: no float file under another name
    session = prepare_session(file.path)
    assert {info.dtype for info in (*session.inputs, *session.outputs)} == {"int8"}
    assert integer_kernels(file.path) >= 3
    answers = []
    for row in x[:50]:
        session.set_inputs([row[None]])
        session.invoke()
        answers.append(session.results()[0])
    expected = np.asarray(model(x[:50], training=False))
    assert np.abs(np.concatenate(answers) - expected).max() < 0.05


def integer_kernels(path: Path) -> int:
    """How many fully connected layers and convolutions read int8 and have int8 weights."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    kinds = {item["index"]: item["dtype"] for item in interpreter.get_tensor_details()}
    return sum(
        [kinds[place] for place in item["inputs"][:2]] == [np.int8, np.int8]
        for item in interpreter._get_ops_details()
        if item["op_name"] in ("FULLY_CONNECTED", "CONV_2D")
    )


def test_where_nothing_would_be_integers_no_file_is_made(tmp_path: Path) -> None:
    x, _ = sequences(40)
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, L.GRU(4, name="steps")(inputs), name="bare")
    with pytest.raises(RunFailed, match=r"crashed on model 'bare'.*no file either.*in integers"):
        compress.export(model, tmp_path / "m.tflite", format="int8", data=x)
    assert not (tmp_path / "m.tflite").exists()


def test_one_that_crashes_among_others_has_a_file_for_timing(tmp_path: Path) -> None:
    plain = recurrent(L.GlobalAveragePooling1D())
    files = write_latency_files([plain, recurrent(L.LSTM(8))], tmp_path, "int8")
    assert all(isinstance(file, Path) for file in files), files
    assert [integer_kernels(Path(file)) >= 2 for file in files] == [True, True]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stored")
    x, y = sequences(400)
    model = recurrent(L.LSTM(8, name="steps"), 64)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=4, verbose=0)
    np.savez(folder / "rows.npz", x_train=x, y_train=y)
    model.save(folder / "net.keras")
    return folder / "net.keras", folder / "rows.npz"


@pytest.mark.slow
def test_the_command_line_says_how_int8_was_made(stored: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = stored
    words = [
        "compress", model, "--data", data, "--normalize", "none", "--channels", "0.8x",
        "--sparsity", 0, "--finetune-epochs", 0, "--formats", "float32,int8",
        "--latency-budget", 0.5, "--device", "cpu", "--out", tmp_path / "out",
    ]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    (record,) = load_report(tmp_path / "out").compressed
    notes = " ".join(record.notes)
    assert notes.count("calibrated by paretune's own rules instead") == 2  # the original and it
    assert "in floats: 1 x LSTM (steps)" in notes
    assert len(list((tmp_path / "out" / "exports").glob("*.int8.tflite"))) == 2


@pytest.mark.matrix
def test_the_command_line_shrinks_such_a_model_to_a_size(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = stored
    words = [
        "shrink", model, "--data", data, "--normalize", "none", "--size", "9KB", "--no-train",
        "--latency-budget", 0.5, "--device", "cpu", "--out", tmp_path / "out",
        "--formats", "float32,int8",
    ]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "out" / "ship").glob("*.tflite")
    assert file.stat().st_size <= 9000
    (record,) = load_report(tmp_path / "out").compressed
    assert "calibrated by paretune's own rules instead" in " ".join(record.notes)
