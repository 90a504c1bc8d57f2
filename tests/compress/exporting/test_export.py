"""Exported files against the Keras model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import export
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.data import Dataset, sample_stratified
from compress.exporting.litert import export_litert
from compress.exporting.mnn import export_mnn
from compress.exporting.onnx import export_onnx, quantize_onnx
from compress.exporting.tracing import TracedSavedModel
from compress.measure.file_agreement import compute_outputs
from compress.measure.runtimes import RUNTIMES, prepare_session
from compress.measure.runtimes.litert import LiteRTSession
from compress.measure.runtimes.mnn import MNNSession
from compress.measure.runtimes.onnx import OnnxSession
from compress.measure.runtimes.openvino import OpenVinoSession
from compress.measure.runtimes.tensorflow import TensorFlowSession
from compress.model.file_formats import SavedModel
from compress.plan import ExportOptions
from tests.compress.exporting.tflite import zeros_in
from tests.contracts.runtime import RuntimeContract


class TestLiteRT(RuntimeContract):
    name = "litert"

    @pytest.fixture
    def path(self, tmp_path: Path, small_cnn: Callable[..., Any]) -> Path:
        export_litert(small_cnn(), tmp_path / "m.tflite")
        return tmp_path / "m.tflite"


class TestOnnx(RuntimeContract):
    name = "onnx"

    @pytest.fixture
    def path(self, tmp_path: Path, small_cnn: Callable[..., Any]) -> Path:
        export_onnx(small_cnn(), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"


class TestOpenVino(TestOnnx):
    name = "openvino"


class TestTensorFlow(RuntimeContract):
    name = "tensorflow"

    @pytest.fixture
    def path(self, tmp_path: Path, small_cnn: Callable[..., Any]) -> Path:
        small_cnn().save(tmp_path / "m.keras")
        return tmp_path / "m.keras"

    def test_its_process_has_the_threads_and_reports_what_is_wrong(self, tmp_path: Path) -> None:
        (tmp_path / "bad.keras").write_bytes(b"nothing")
        with pytest.raises(InputError, match="Keras 3 must be able to read"):
            TensorFlowSession(tmp_path / "bad.keras", 1)


class TestTensorFlowOfASavedModel(RuntimeContract):
    name = "tensorflow"

    @pytest.fixture
    def path(self, small_cnn: Callable[..., Any], tmp_path: Path) -> Path:
        small_cnn().export(tmp_path / "saved", verbose=False)
        return tmp_path / "saved"


class TestMNN(RuntimeContract):
    name = "mnn"

    @pytest.fixture
    def path(self, tmp_path: Path, small_cnn: Callable[..., Any]) -> Path:
        pytest.importorskip("MNN")
        export_litert(small_cnn(), tmp_path / "m.tflite")
        export_mnn(tmp_path / "m.tflite", tmp_path / "m.mnn")
        return tmp_path / "m.mnn"

    def test_it_is_quiet(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        MNNSession(path, 1).invoke()
        assert capfd.readouterr().out == ""

    def test_it_computes_what_the_tflite_file_does(self, path: Path, digits: Dataset) -> None:
        x = digits.inputs("val")[:20]
        expected = compute_outputs(LiteRTSession(path.with_suffix(".tflite"), 1), [x])[0]
        np.testing.assert_allclose(
            compute_outputs(MNNSession(path, 1), [x])[0], expected, atol=1e-5
        )


def test_a_saved_model_that_cannot_be_traced_names_the_reason(
    small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    small_cnn().export(tmp_path / "saved", verbose=False)
    source = SavedModel(tmp_path / "saved")

    def fail(**inputs: Any) -> Any:
        raise ValueError("the table is empty")

    source.build_function = lambda sizes: fail  # type: ignore[method-assign]
    with (
        TracedSavedModel(source, [(8, 8, 1)]) as traced,
        pytest.raises(RunFailed, match="^SavedModel 'saved' could not be .*: the table is empty$"),
    ):
        traced.ensure_saved()


def test_mnn_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    pytest.importorskip("MNN")
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    with pytest.raises(RunFailed, match="MNN's converter crashed on 'bad.tflite'.*signal 11"):
        export_mnn(tmp_path / "bad.tflite", tmp_path / "bad.mnn")
    assert not (tmp_path / "bad.mnn").exists()
    with pytest.raises(InputError, match="no such file"):
        MNNSession(tmp_path / "bad.mnn", 1)
    with pytest.raises(InputError, match=r"must end in .tflite, .mnn, .onnx, .keras, .h5"):
        prepare_session(tmp_path / "bad.txt")


def test_a_missing_mnn_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"paretune\[mnn\]"):
        export_mnn(tmp_path / "m.tflite", tmp_path / "m.mnn")


def test_every_format_computes_the_model_and_repeats_its_bytes(
    digits: Dataset, small_cnn: Callable[..., Any], tmp_path: Path, cpu: Any
) -> None:
    from compress.plan import TrainSettings
    from compress.train import train

    model = small_cnn()
    train(model, digits, TrainSettings(epochs=6, batch_size=64, learning_rate=3e-3), device=cpu)
    formats = ("float32", "float16", "dynamic", "onnx", "onnx_int8", "int8")
    options = ExportOptions(formats=formats)
    files, again = (export(model, tmp_path / name, data=digits, options=options) for name in "ab")
    assert tuple(made.format for made in files) == formats
    expected = model.predict(digits.inputs("val"), verbose=0)
    for made, repeated in zip(files, again, strict=True):
        kind = made.format
        assert made.path.read_bytes() == repeated.path.read_bytes(), kind
        assert made.path.suffix == (".onnx" if kind.startswith("onnx") else ".tflite")
        scores = compute_outputs(prepare_session(made.path), [digits.inputs("val")])[0]
        allowed = 1e-5 if kind in ("float32", "onnx") else 0.15
        assert np.abs(scores - expected).max() < allowed, kind
        assert (scores.argmax(-1) == expected.argmax(-1)).mean() > 0.97, kind
        assert made.agreement > 0.97, kind


def test_smaller_formats_are_smaller(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((64,))
    model = keras.Model(inputs, keras.layers.Dense(512)(inputs))
    sizes = {}
    for kind in ("float32", "float16", "dynamic"):
        export_litert(model, tmp_path / f"{kind}.tflite", kind)
        sizes[kind] = (tmp_path / f"{kind}.tflite").stat().st_size
    # 64 x 512 weights: 4, 2 and 1 bytes each
    assert sizes["float32"] - sizes["float16"] == pytest.approx(64 * 512 * 2, rel=0.1)
    # less scales of 4 bytes for each of 512 units
    assert sizes["float16"] - sizes["dynamic"] > 64 * 512 - 4 * 512 - 5000


def test_grouped_convolutions_and_gelu_reach_onnx(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 8))
    layer = keras.layers.Conv2D(16, 3, groups=4, padding="same", activation="gelu")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(layer(inputs)))
    export_onnx(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 8)).astype(np.float32)
    expected = model(x, training=False).numpy()
    for session in (OnnxSession(tmp_path / "m.onnx", 1), OpenVinoSession(tmp_path / "m.onnx", 1)):
        np.testing.assert_allclose(compute_outputs(session, [x])[0], expected, atol=1e-5)
    assert "call" not in vars(layer)


def test_onnx_refusals(
    tmp_path: Path, small_cnn: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    import keras
    import onnx

    class Strange(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            import tensorflow as tf

            return tf.linalg.svd(x, compute_uv=False)

    inputs = keras.Input((8, 8))
    with pytest.raises(RunFailed, match="ONNX converter refused model.*layer 'odd' needs Svd"):
        export_onnx(keras.Model(inputs, Strange(name="odd")(inputs)), tmp_path / "s.onnx")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"opset must be in .*Received: 99"):
        export_onnx(small_cnn(), tmp_path / "s.onnx", opset=99)
    export_onnx(small_cnn(), tmp_path / "s.onnx", opset=14)
    assert onnx.load(tmp_path / "s.onnx").opset_import[0].version == 14
    open_size = keras.Input((None, None, 3))
    model = keras.Model(open_size, keras.layers.GlobalAveragePooling2D()(open_size))
    with pytest.raises(InputError, match="must have a known input size to be exported"):
        export_onnx(model, tmp_path / "o.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(RunFailed, match="quantizer refused 'bad.onnx'"):
        quantize_onnx(tmp_path / "bad.onnx", tmp_path / "q.onnx", [np.zeros((1, 2), np.float32)])
    for kind in (OnnxSession, OpenVinoSession):
        with pytest.raises(InputError, match="must be able to run"):
            kind(tmp_path / "bad.onnx", 1)
    node = onnx.helper.make_node("Nonsense", ["x"], ["y"])
    made = [onnx.helper.make_tensor_value_info(n, 1, [1, 4]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", made[:1], made[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "unknown.onnx")
    with pytest.raises(InputError, match="ONNX Runtime must be able to run.*Nonsense"):
        OnnxSession(tmp_path / "unknown.onnx", 1)
    captured = capfd.readouterr()
    assert captured.out == ""


def test_a_sparse_file_leaves_zeros_out_and_computes_the_same(tmp_path: Path) -> None:
    import keras

    from compress.plan import WeightOptions
    from compress.prune.weights import WeightPruner

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 16))
    x = keras.layers.Conv2D(128, 1, activation="relu", name="a")(inputs)
    x = keras.layers.Conv2D(128, 1, activation="relu", name="b")(x)
    x = keras.layers.Conv2D(128, 1, name="c")(x)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    WeightPruner(WeightOptions(sparsity=0.9)).once(model)
    sizes, outputs = {}, {}
    for name in (False, True):
        path = tmp_path / f"{name}.tflite"
        export_litert(model, path, "sparse" if name else "float32")
        sizes[name] = path.stat().st_size
        probe = np.random.default_rng(0).normal(size=(3, 8, 8, 16)).astype(np.float32)
        outputs[name] = compute_outputs(LiteRTSession(path, 1), [probe])[0]
    # 2 x 128 x 128 weights of 4 bytes; at 90 % a value and an index byte for each tenth
    assert sizes[True] < sizes[False] - 0.7 * 2 * 128 * 128 * 4
    np.testing.assert_allclose(outputs[True], outputs[False], atol=1e-6)


def test_files_agree_with_keras(
    digits: Dataset, tmp_path: Path, small_cnn: Callable[..., Any], cpu: Any
) -> None:
    from compress.plan import TrainSettings
    from compress.train import train

    model = small_cnn()
    train(model, digits, TrainSettings(epochs=10, batch_size=32, learning_rate=5e-3), device=cpu)
    shares: list[float] = []
    files = export(
        model, tmp_path / "m", data=digits, on_progress=lambda _, share: shares.append(share)
    )
    # two files, and tracing counts as one more
    assert shares == pytest.approx([0, 1 / 3, 2 / 3])
    made = {item.format: item for item in files}
    assert made["float32"].max_difference < 1e-5
    assert made["float32"].agreement == 1.0
    assert made["int8"].agreement > 0.95
    assert made["int8"].checked == 200
    # the record's own numbers, computed again from the file
    checked = digits.inputs("val")[sample_stratified(digits.val, 200)]
    expected = model.predict(checked, verbose=0)
    got = compute_outputs(LiteRTSession(made["int8"].path, 1), [checked])[0]
    assert made["int8"].max_difference == pytest.approx(np.abs(got - expected).max(), abs=1e-5)
    session = LiteRTSession(made["int8"].path, 1)
    assert [info.dtype for info in session.inputs] == ["int8"]
    assert [info.to_json() for info in session.outputs] == [
        {"dtype": "int8", "scale": 1 / 256, "zero_point": -128}
    ]


def test_the_sidecar_says_how_to_feed_the_files(
    digits: Dataset, tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    """Fed by hand from the .json alone, in NumPy, the int8 file gives what ours gives."""
    made = export(small_cnn(), tmp_path / "m", data=digits, formats=["int8"])
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
    ours = compute_outputs(LiteRTSession(made[0].path, 1), [digits.preprocess(raw)])[0]
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
    first = {
        item.format: item.path.read_bytes() for item in export(model, tmp_path / "a", data=digits)
    }
    again = {
        item.format: item.path.read_bytes() for item in export(model, tmp_path / "b", data=digits)
    }
    assert first == again
    for content, dtype in ((first["float32"], np.float32), (first["int8"], np.int8)):
        assert zeros_in(content, (16, 3, 3, 8), dtype) >= 576


def test_refusals(tmp_path: Path, small_cnn: Callable[..., Any], digits: Dataset) -> None:
    import keras

    with pytest.raises(InputError, match="must have representative inputs"):
        export_litert(small_cnn(), tmp_path / "m.tflite", "int8")
    inputs = keras.Input((None, 3))
    open_size = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(InputError, match="must have a known input size"):
        export_litert(open_size, tmp_path / "m.tflite")
    inputs = keras.Input((4,))
    strange = keras.Model(inputs, keras.ops.linalg.svd(keras.ops.reshape(inputs, (-1, 2, 2)))[1])
    with pytest.raises(RunFailed, match="converter refused .*an operation needs Svd, which cannot"):
        export_litert(strange, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    with pytest.raises(InputError, match="must be able to run"):
        LiteRTSession(tmp_path / "bad.tflite", 1)
    assert "litert" in RUNTIMES.names()


def test_files_made_one_after_the_other_have_one_record(
    tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    model, stem = small_cnn(), tmp_path / "m"
    about = tmp_path / "m.json"
    export(model, stem, formats=["float32"])
    export(model, stem, formats=["float16"])
    assert sorted(json.loads(about.read_text())["files"]) == [
        "m.float16.tflite", "m.float32.tflite",
    ]  # fmt: skip
    (tmp_path / "m.float32.tflite").unlink()
    export(model, stem, formats=["dynamic"])
    assert sorted(json.loads(about.read_text())["files"]) == [
        "m.dynamic.tflite", "m.float16.tflite",
    ]  # fmt: skip
    about.write_text('{"something": "else"}')
    export(model, stem, formats=["float32"])
    assert sorted(json.loads(about.read_text())["files"]) == ["m.float32.tflite"]
