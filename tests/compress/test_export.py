"""Exported files against the Keras model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import export
from compress.data import Dataset
from compress.errors import InputError, RunFailed
from compress.export.litert import export_litert
from compress.measure.quality import run_all
from compress.measure.runtimes import RUNTIMES, LiteRTSession
from compress.measure.size import file_sizes
from compress.plan import ExportOptions
from tests.contracts.runtime import RuntimeContract


class TestLiteRT(RuntimeContract):
    name = "litert"

    @pytest.fixture
    def path(self, tmp_path: Path, small_cnn: Callable[..., Any]) -> Path:
        export_litert(small_cnn(), tmp_path / "m.tflite", quantize=False)
        return tmp_path / "m.tflite"


def test_files_agree_with_keras(
    digits: Dataset, tmp_path: Path, small_cnn: Callable[..., Any], cpu: Any
) -> None:
    from compress.plan import TrainSettings
    from compress.train import train

    model = small_cnn()
    train(model, digits, TrainSettings(epochs=10, batch_size=32, learning_rate=5e-3), device=cpu)
    made = {item.format: item for item in export(model, digits, tmp_path / "m")}
    assert made["float32"].max_difference < 1e-5
    assert made["float32"].agreement == 1.0
    assert made["int8"].agreement > 0.95
    assert made["int8"].checked == 200
    # the record's own numbers, computed again from the file
    expected = model.predict(digits.inputs("val")[:200], verbose=0)
    got = run_all(LiteRTSession(made["int8"].path, 1), digits.inputs("val")[:200])
    assert made["int8"].max_difference == pytest.approx(np.abs(got - expected).max(), abs=1e-5)
    session = LiteRTSession(made["int8"].path, 1)
    assert session.input_quantization["dtype"] == "int8"
    assert session.output_quantization == {
        "dtype": "int8", "scale": 1 / 256, "zero_point": -128,
    }  # fmt: skip


def test_the_sidecar_says_how_to_feed_the_files(
    digits: Dataset, tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    """Fed by hand from the .json alone, in NumPy, the int8 file gives what ours gives."""
    made = export(small_cnn(), digits, tmp_path / "m", ExportOptions(formats=("int8",)))
    card = json.loads((tmp_path / "m.json").read_text())
    raw = digits.test.x[:5]
    scaling, feed = card["preprocess"], card["files"]["m.int8.tflite"]
    x = (raw * scaling["scale"] - np.array(scaling["mean"])) / np.array(scaling["std"])
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(made[0].path))
    interpreter.allocate_tensors()
    levels = np.clip(np.round(x / feed["input"]["scale"]) + feed["input"]["zero_point"], -128, 127)
    outputs = []
    for row in levels.astype(np.int8):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    out = feed["output"]
    values = (np.stack(outputs).astype(np.float64) - out["zero_point"]) * out["scale"]
    ours = run_all(LiteRTSession(made[0].path, 1), digits.preprocess(raw))
    np.testing.assert_allclose(values, ours, atol=1e-6)
    assert card["class_names"] == list(digits.class_names)
    assert card["input_shape"] == [1, 8, 8, 1]


def test_zeros_stay_zeros_and_bytes_are_repeatable(
    digits: Dataset, tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    model = small_cnn()
    kernel = model.get_layer("mid").kernel.numpy()
    kernel.flat[::2] = 0.0  # half of 1152
    model.get_layer("mid").kernel.assign(kernel)
    first = {item.format: item.path.read_bytes() for item in export(model, digits, tmp_path / "a")}
    again = {item.format: item.path.read_bytes() for item in export(model, digits, tmp_path / "b")}
    assert first == again
    from ai_edge_litert.interpreter import Interpreter

    for content, dtype in ((first["float32"], np.float32), (first["int8"], np.int8)):
        # without a delegate constants stay readable
        from ai_edge_litert.interpreter import OpResolverType

        interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        zeros = [
            int((interpreter.get_tensor(detail["index"]) == 0).sum())
            for detail in interpreter.get_tensor_details()
            if tuple(detail["shape"]) == (16, 3, 3, 8) and detail["dtype"] == dtype
        ]
        assert len(zeros) == 1
        assert zeros[0] >= 576


def test_file_sizes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\0" * 10_000)
    size, zipped = file_sizes(tmp_path / "f")
    assert size == 10_000
    assert 20 < zipped < 100


def test_refusals(tmp_path: Path, small_cnn: Callable[..., Any], digits: Dataset) -> None:
    import keras

    with pytest.raises(InputError, match="must have representative inputs"):
        export_litert(small_cnn(), tmp_path / "m.tflite", quantize=True)
    inputs = keras.Input((None, 3))
    open_size = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(InputError, match="must have a known input size"):
        export_litert(open_size, tmp_path / "m.tflite", quantize=False)
    inputs = keras.Input((4,))
    strange = keras.Model(inputs, keras.ops.linalg.svd(keras.ops.reshape(inputs, (-1, 2, 2)))[1])
    with pytest.raises(RunFailed, match="converter refused"):
        export_litert(strange, tmp_path / "m.tflite", quantize=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    with pytest.raises(InputError, match="must be able to run"):
        LiteRTSession(tmp_path / "bad.tflite", 1)
    assert "litert" in RUNTIMES.names()
