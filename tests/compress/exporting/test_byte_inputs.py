"""Models that take uint8 or int8 pixels: every format, from Python and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import compress
from compress.core.errors import InputError
from compress.measure.runtimes import prepare_session
from search.cli import app

L = keras.layers
LITERT = [
    "float32", "float16", "dynamic", "int8", "int16x8", "int8-mixed", "int4-weights", "sparse",
]  # fmt: skip
INTEGERS = {"int8", "int8-qat"}
"""Formats whose file multiplies integers from the pixels on."""


def pixels(count: int = 160) -> tuple[Any, Any]:
    """Images of 8 x 8, dark but for one bright quarter: which one is the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    images = rng.integers(0, 90, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 150
    return images.astype(np.uint8), labels


def scaled(kind: str, x: Any) -> Any:
    return {
        "Rescaling": lambda: L.Rescaling(1 / 127.5, offset=-1.0)(x),
        "cast": lambda: keras.ops.cast(x, "float32") / 255.0,
        "divide": lambda: x / 255.0,
        "Normalization": lambda: L.Normalization(mean=[60.0], variance=[900.0])(x),
        "augmented": lambda: L.Rescaling(1 / 255)(L.RandomFlip()(x)),
        "resized": lambda: L.Rescaling(1 / 255)(L.Resizing(6, 6)(x)),
    }[kind]()


def net(kind: str = "Rescaling", dtype: str = "uint8") -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), dtype=dtype, name="pixels")
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(scaled(kind, inputs))
    x = L.ReLU()(L.BatchNormalization(momentum=0.5)(x))
    x = L.Conv2D(8, 3, strides=2, activation="relu")(x)
    return keras.Model(inputs, L.Dense(4, activation="softmax")(L.Flatten()(x)), name="bytes")


@pytest.fixture(scope="module")
def learnt() -> Any:
    model = net()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(*pixels(), epochs=6, verbose=0)
    assert (model.predict(pixels()[0], verbose=0).argmax(-1) == pixels()[1]).mean() > 0.95
    return model


def fed(path: Path, about: dict[str, Any], images: Any) -> Any:
    """What a file answers to raw pixels, fed as the record beside it says, by hand."""
    from ai_edge_litert.interpreter import Interpreter

    (how,) = (about["files"][path.name],)
    assert how["input"]["dtype"] == "uint8"
    # quantized or not, a pixel is stored as it is
    assert how["input"].get("scale", 1.0) == 1.0
    assert how["input"].get("zero_point", 0) == 0
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == np.uint8
    answers = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(made["index"])[0].astype(np.float64))
    scale, zero = how["output"].get("scale", 1.0), how["output"].get("zero_point", 0)
    return (np.stack(answers) - zero) * scale


def operations(path: Path) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return [item["op_name"] for item in interpreter._get_ops_details()]


@pytest.mark.slow
def test_every_format_takes_pixels(learnt: Any, tmp_path: Path) -> None:
    x, _ = pixels()
    expected = learnt.predict(x, verbose=0)
    made = compress.export(learnt, tmp_path / "m", formats=LITERT, data=x)
    assert [file.format for file in made] == LITERT
    about = json.loads((tmp_path / "m.json").read_text())
    assert (about["preprocess"]["scale"], about["preprocess"]["mean"]) == (1.0, [0.0])
    for file in made:
        answers = fed(file.path, about, x)
        assert np.abs(answers - expected).max() < 0.1, file.format
        assert (answers.argmax(-1) == expected.argmax(-1)).mean() > 0.97, file.format
        if file.format != "int8-mixed":  # which chooses the precision of its first layer
            has_cast = "CAST" in operations(file.path)
            assert has_cast == (file.format not in INTEGERS), file.format


def test_onnx_files_take_pixels(learnt: Any, tmp_path: Path) -> None:
    import onnxruntime

    x, _ = pixels()
    expected = learnt.predict(x, verbose=0)
    made = compress.export(learnt, tmp_path / "m", formats=["onnx", "onnx_int8"], data=x)
    about = json.loads((tmp_path / "m.json").read_text())
    for file in made:
        assert about["files"][file.path.name]["input"] == {"dtype": "uint8"}
        session = onnxruntime.InferenceSession(str(file.path))
        name = session.get_inputs()[0].name
        answers = np.concatenate([session.run(None, {name: image[None]})[0] for image in x])
        assert np.abs(answers - expected).max() < 0.1, file.format


@pytest.mark.parametrize("epochs", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_quantize_takes_pixels(learnt: Any, tmp_path: Path, epochs: int) -> None:
    x, y = pixels()
    expected = learnt.predict(x, verbose=0)
    made = compress.quantize(learnt, (x, y) if epochs else x, epochs=epochs)
    assert [call.reason for call in made.placed if call.reason] == []
    (file,) = made.export(tmp_path / "m.tflite")
    (other,) = made.export(tmp_path / "m.onnx")
    assert (file.agreement, other.agreement) == (1.0, 1.0)
    about = json.loads((tmp_path / "m.json").read_text())
    assert about["files"]["m.tflite"]["input"] == {
        "dtype": "uint8", "scale": 1.0, "zero_point": 0,
    }  # fmt: skip
    assert about["files"]["m.onnx"]["input"] == {"dtype": "uint8"}
    assert operations(file.path)[0] == "QUANTIZE"
    answers = fed(file.path, about, x)
    assert (answers.argmax(-1) == expected.argmax(-1)).mean() > 0.95


@pytest.mark.parametrize(
    "kind",
    [
        "Normalization",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("cast", "divide", "augmented", "resized")
        ),
    ],
)
def test_however_pixels_become_numbers(kind: str, tmp_path: Path) -> None:
    x, _ = pixels(40)
    made = compress.quantize(net(kind), x, epochs=0)
    (file,) = made.export(tmp_path / "m.tflite")
    assert file.max_difference <= 1 / 256 + 1e-6
    floats = [call.kind for call in made.placed if call.reason]
    assert floats == (["Resizing"] if kind == "resized" else [])
    answers, plain = (np.asarray(m(x, training=False)) for m in (made.quantized, made.model))
    assert np.abs(answers - plain).max() < 0.05


def test_int8_pixels(tmp_path: Path) -> None:
    x = (pixels(40)[0].astype(int) - 128).astype(np.int8)
    model = net(dtype="int8")
    (plain,) = compress.export(model, tmp_path / "p.tflite", format="int8", data=x)
    (own,) = compress.quantize(model, x, epochs=0).export(tmp_path / "q.tflite")
    for file in (plain, own):
        (info,) = prepare_session(file.path).inputs
        assert (info.dtype, info.scale, info.zero_point) == ("int8", 1.0, 0)
        assert file.max_difference < 0.05


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")
def test_the_way_through_floats_answers_alike(learnt: Any, tmp_path: Path) -> None:
    """The file with its pixels quantized directly, beside the converter's own, to the bit."""
    import tensorflow as tf

    from compress.exporting.tflite_editing import quantize_byte_inputs

    x, _ = pixels(60)
    converter = tf.lite.TFLiteConverter.from_keras_model(learnt)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in x)
    content = converter.convert()
    files = {"own": content, "direct": quantize_byte_inputs(content)}
    answers = {}
    for name, held in files.items():
        (tmp_path / name).with_suffix(".tflite").write_bytes(held)
        path = (tmp_path / name).with_suffix(".tflite")
        assert ("CAST" in operations(path)) == (name == "own")
        session = prepare_session(path)
        outputs = []
        for image in x:
            session.set_inputs([image[None]])
            session.invoke()
            outputs.append(session.results()[0])
        answers[name] = np.concatenate(outputs)
    assert (answers["own"] == answers["direct"]).mean() > 0.98
    np.testing.assert_allclose(answers["own"], answers["direct"], atol=2 / 256)


def test_what_is_no_pixel_is_refused(learnt: Any, tmp_path: Path) -> None:
    x = pixels(40)[0] / 255.0
    with pytest.raises(InputError, match=r"'pixels' takes uint8.*Feed the examples unscaled"):
        compress.export(learnt, tmp_path / "m.tflite", data=x)


def test_random_inputs_are_pixels_of_the_whole_range(learnt: Any, tmp_path: Path) -> None:
    from compress.exporting.file_checks import draw_random_inputs

    drawn = np.asarray(draw_random_inputs(learnt, 0).train.x)
    assert (drawn.min(), drawn.max()) == (0.0, 255.0)


def test_pruned_and_repaired(learnt: Any) -> None:
    x, y = pixels()
    small = compress.prune_channels(
        learnt, macs=0.6, data=(x, y), repair=True, round_to=2, min_kept=0.25
    )
    assert small.model.inputs[0].dtype == "uint8"
    assert (small.model.predict(x, verbose=0).argmax(-1) == y).mean() > 0.9


@pytest.fixture(scope="module")
def stored(learnt: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stored")
    x, y = pixels(240)
    np.savez(folder / "pixels.npz", x_train=x, y_train=y)
    learnt.save(folder / "net.keras")
    return folder / "net.keras", folder / "pixels.npz"


def command(*words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.mark.slow
def test_the_command_line_compresses(stored: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = stored
    out = tmp_path / "out"
    command(
        "compress", model, "--data", data, "--channels", "0.7x", "--sparsity", 0,
        "--finetune-epochs", 0, "--formats", "float32,int8,int8-qat", "--qat-epochs", 0,
        "--latency-budget", 0.5, "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert "are integers: examples are fed as they are" in (out / "log.txt").read_text()
    (about,) = (json.loads(path.read_text()) for path in (out / "exports").glob("net-*.json"))
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in about["files"]} == {
        "float32", "int8", "int8-qat",
    }  # fmt: skip
    assert {how["input"]["dtype"] for how in about["files"].values()} == {"uint8"}
    assert about["preprocess"]["scale"] == 1.0


@pytest.mark.matrix
def test_the_command_line_shrinks_to_a_size(stored: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = stored
    out = tmp_path / "out"
    command(
        "shrink", model, "--data", data, "--size", "5KB", "--finetune-epochs", 1,
        "--latency-budget", 0.5, "--device", "cpu", "--out", out,
    )  # fmt: skip
    (file,) = (out / "ship").glob("*.tflite")
    assert file.stat().st_size <= 5000
    assert prepare_session(file).inputs[0].dtype == "uint8"
