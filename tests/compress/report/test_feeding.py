"""How to feed a file: what the page says is run, and answers as the file does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.data import Dataset
from compress.exporting import export
from compress.measure.runtimes import prepare_session
from compress.report.live.page import format_feeding_code

FORMATS = ["float32", "int8"]
if importlib.util.find_spec("tf2onnx"):
    FORMATS.append("onnx")


@pytest.fixture(scope="module")
def files(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 1))
    y = keras.layers.Conv2D(4, 3, activation="relu")(x)
    y = keras.layers.Dense(10)(keras.layers.Flatten()(y))
    place = tmp_path_factory.mktemp("run") / "exports"
    place.mkdir()
    made = export(keras.Model(x, y), place / "m", formats=FORMATS, data=digits)
    return {item.format: item.path for item in made}


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> Any:
    monkeypatch.chdir(folder)
    space = dict(given)
    exec(code, space)
    return space["answers"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_said_is_run(
    format: str, files: dict[str, Path], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files[format]
    code = format_feeding_code(f"exports/{path.name}", "m", {"input_shape": [8, 8, 1]})
    assert (path.parent / "m.json").is_file()
    assert "exports/m.json" in code
    x = np.asarray(digits.preprocess(digits.val.x[:1]), np.float32)
    found = run(code, path.parent.parent, monkeypatch, x=x)
    (answer,) = found.values() if isinstance(found, dict) else found
    session = prepare_session(path)
    session.set_inputs([x])
    session.invoke()
    (wanted,) = session.results()
    if answer.dtype == np.int8:  # the session turns it into real numbers
        scale = np.ptp(wanted) / np.ptp(answer.astype(float))
        np.testing.assert_allclose(
            answer.astype(float) * scale - (answer.astype(float) * scale - wanted).mean(), wanted,
            atol=1e-4,
        )  # fmt: skip
    else:
        np.testing.assert_allclose(answer, wanted, atol=1e-4)


def test_several_inputs_are_fed_by_name() -> None:
    shapes = {"input_shapes": {"image": [8, 8, 1], "a b": [3]}}
    code = format_feeding_code("exports/m.float32.tflite", "m", shapes)
    assert "fed = {'image': x0, 'a b': x1}" in code
    assert "# x1: float32 of shape (1, 3)" in code


def test_other_files_have_no_short_way() -> None:
    assert format_feeding_code("exports/m.mnn", "m", {"input_shape": [3]}) == ""
