"""Format int8-qat: the smaller model trained as its file of integers computes, in a compression."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import compress_model
from compress.data import Dataset
from compress.measure.runtimes import prepare_session
from tests.compress.quantization.saturating import INT16, kernels_of, worst_pairs
from tests.compress.shrinking.conftest import learnt

QUICK: dict[str, Any] = {
    "finetune_epochs": 1, "batch_size": 64, "qat_epochs": 1, "latency_budget": 0.5,
    "sparsity": 0.75,
}  # fmt: skip


@pytest.fixture(scope="module")
def net(digits: Dataset, cpu: Any) -> Any:
    return learnt(digits, cpu, (12, 24), 16)


@pytest.mark.slow
def test_a_file_is_trained_for_beside_the_others(net: Any, digits: Dataset, tmp_path: Path) -> None:
    seen: list[str] = []
    result = compress_model(
        net, digits, out=tmp_path / "out", formats=["float32", "int8", "int8-qat"],
        on_progress=lambda text, _: seen.append(text), **QUICK,
    )  # fmt: skip
    rows = {row.artifact.id: row for row in result.report.rows}
    assert list(rows) == [
        "net.float32", "net.int8", "net-p75.float32", "net-p75.int8", "net-p75.int8-qat",
    ]  # fmt: skip
    whole = rows["net-p75.int8-qat"]
    assert whole.artifact.agreement == 1.0
    assert whole.latency is not None
    assert whole.artifact.baseline == "net.float32"
    assert whole.artifact.test["accuracy"] > rows["net-p75.float32"].artifact.test["accuracy"] - 0.1
    assert any("training integers" in text for text in seen)
    session = prepare_session(result.folder / whole.artifact.file)
    assert {info.dtype for info in (*session.inputs, *session.outputs)} == {"int8"}
    about = json.loads((result.folder / "exports" / "net-p75.json").read_text())
    assert sorted(about["files"]) == [
        "net-p75.float32.tflite", "net-p75.int8-qat.tflite", "net-p75.int8.tflite",
    ]  # fmt: skip
    (record,) = result.report.compressed
    assert "net-p75.int8-qat was trained for 1 more epochs as the file computes" in record.notes
    page = (result.folder / "report.html").read_text()
    assert "int8-qat" in page


@pytest.mark.slow
def test_onnx_files_are_trained_for_with_their_grid(
    net: Any, digits: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    result = compress_model(
        net, digits, out=tmp_path / "out", formats=["int8-qat", "onnx_int8-qat"], **QUICK
    )
    rows = {row.artifact.format: row.artifact for row in result.report.rows}
    for kernel, _ in kernels_of(result.folder / rows["onnx_int8-qat"].file):
        low, high = worst_pairs(kernel)
        assert INT16.min <= low < high <= INT16.max
    # one model, quantized for both: its files give the same decisions
    assert rows["int8-qat"].agreement == rows["onnx_int8-qat"].agreement == 1.0
    assert rows["int8-qat"].test["accuracy"] == pytest.approx(
        rows["onnx_int8-qat"].test["accuracy"], abs=0.005
    )


@pytest.mark.slow
def test_what_stays_in_floats_is_noted(digits: Dataset, tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(6, 3)(inputs)
    x = keras.layers.LayerNormalization(name="by_example")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x), name="mixed")
    result = compress_model(
        model, digits, out=tmp_path / "out", formats=["int8-qat"], **{**QUICK, "sparsity": 0.0}
    )
    notes = " ".join(note for record in result.report.compressed for note in record.notes)
    assert "in floats: 1 x LayerNormalization (by_example)" in notes
    # nothing else was asked for: the model's own file is float32
    assert {row.artifact.format for row in result.report.rows} == {"float32", "int8-qat"}


@pytest.mark.slow
def test_zeros_are_counted_in_the_file(net: Any, digits: Dataset, tmp_path: Path) -> None:
    from compress import count_macs

    result = compress_model(
        net,
        digits,
        out=tmp_path / "out",
        formats=["float32", "int8-qat"],
        weight_scope="layer",
        **QUICK,
    )
    (file,) = (
        result.folder / row.artifact.file for row in result.report.rows
        if row.artifact.format == "int8-qat"
    )  # fmt: skip
    model = result.model
    zeros = {
        layer.name: float(np.mean(layer.kernel.numpy() == 0))
        for layer in model.layers if hasattr(layer, "kernel")
    }  # fmt: skip
    assert zeros["mid"] == pytest.approx(0.75, abs=0.01)
    # rounding makes zeros of small weights, and none of zeros anything else
    counted, whole = count_macs(file), count_macs(model)
    assert 0.9 * whole.nonzero < counted.nonzero <= whole.nonzero
