"""SavedModels and LiteRT files of open sizes are timed: runtimes, inputs, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import BenchPlan, bench
from compress.benchmarking.models import collect_models
from compress.core.errors import InputError
from compress.exporting.litert import convert_litert
from compress.exporting.tflite_editing import resize_inputs
from compress.exporting.tracing import TracedSavedModel
from compress.measure.runtimes import RUNTIMES
from compress.model.file_formats import SavedModel

QUICK = BenchPlan(runtimes=("litert", "tensorflow"), budget=0.5)


@pytest.mark.slow
def test_a_saved_model_is_converted_and_run_as_it_is(
    tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    small_cnn().export(tmp_path / "saved.v1", verbose=False)
    out = tmp_path / "out"
    plan = replace(QUICK, formats=("float32", "int8"), out=str(out))
    result = bench(tmp_path / "saved.v1", plan)
    assert [(row.model, row.runtime, row.format) for row in result.timed] == [
        ("saved.v1", "litert", "float32"), ("saved.v1", "litert", "int8"),
        ("saved.v1", "tensorflow", "float32"),
    ]  # fmt: skip
    (model,) = result.models
    assert (model.macs, model.params) == (4608 + 18432 + 512 + 320, small_cnn().count_params())
    assert (out / "saved.v1.float32.tflite").is_file()
    folder = out / "saved.v1.float32.saved_model"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert result.timed[2].size_bytes == size


def test_a_sequential_model_is_timed_by_tensorflow() -> None:
    import keras

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    assert [row.runtime for row in bench(model, QUICK).timed] == ["litert", "tensorflow"]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two open inputs, one of them of integers, and two outputs."""
    import keras
    from keras import layers as L

    words = keras.Input((None,), dtype="int32", name="words")
    image = keras.Input((None, None, 3), name="image")
    seen = L.GlobalAveragePooling2D()(L.Conv2D(5, 3, padding="same")(image))
    read = L.GlobalAveragePooling1D()(L.Embedding(9, 6)(words))
    made = [L.Dense(2)(L.Concatenate()([seen, read])), L.Dense(4)(read)]
    keras.Model([words, image], made).export(tmp_path / "two", verbose=False)
    return tmp_path / "two"


def test_several_inputs_and_outputs(two: Path) -> None:
    shape = {"image": (8, 9, 3), "words": (7,)}
    result = bench(two, QUICK, input_shape=shape)
    assert {row.runtime for row in result.timed} == {"litert", "tensorflow"}
    assert result.models[0].macs == 8 * 9 * 27 * 5 + 11 * 2 + 6 * 4
    with pytest.raises(InputError, match=r"to be timed. Received: image \(None, None, 3\), words "):
        bench(two, QUICK)
    with pytest.raises(InputError, match=r"agree with input 'words' of .*two', which takes \(None"):
        bench(two, QUICK, input_shape={"image": (8, 9, 3), "words": (7, 2, 2)})


def test_the_copy_at_known_sizes_computes_the_same(two: Path, tmp_path: Path) -> None:
    source = SavedModel(two)
    sizes = source.fill_input_shapes({"image": (8, 9, 3), "words": (7,)}, "to be timed")
    rng = np.random.default_rng(0)
    image, words = rng.normal(size=(1, 8, 9, 3)).astype(np.float32), rng.integers(9, size=(1, 7))
    import tensorflow as tf

    made = source.function(image=tf.constant(image), words=tf.constant(words, tf.int32))
    with TracedSavedModel(source, sizes) as traced:
        assert traced.ports == [
            ("input_0", (1, 8, 9, 3), "float32"), ("input_1", (1, 7), "int32"),
        ]  # fmt: skip
        convert_litert(str(traced.ensure_saved()), str(tmp_path / "two.tflite"), "float32", None)
        for runtime, path in (
            ("tensorflow", traced.ensure_saved()),
            ("litert", tmp_path / "two.tflite"),
        ):
            session = RUNTIMES[runtime].prepare(path, 1)
            session.set_inputs([image, words])
            session.invoke()
            for name, found in zip(sorted(made), session.results(), strict=True):
                np.testing.assert_allclose(found, made[name], atol=1e-5)


def test_a_litert_file_of_open_sizes(two: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.tflite"
    convert_litert(str(two), str(path), "float32", None)
    with pytest.raises(InputError, match=r"open.tflite' must have a known input size to be timed"):
        bench(path, budget=0.5)
    with pytest.raises(InputError, match=r"open.tflite' must have known input sizes. Received: im"):
        RUNTIMES["litert"].prepare(path, 1)
    result = bench(path, budget=0.5, input_shape={"image": (8, 9, 3), "words": (7,)})
    assert result.models[0].macs == 8 * 9 * 27 * 5 + 11 * 2 + 6 * 4
    assert [row.format for row in result.timed] == ["file"]
    # LiteRT's own way to the same sizes
    from ai_edge_litert.interpreter import Interpreter

    rng = np.random.default_rng(0)
    given = {"image": rng.normal(size=(1, 8, 9, 3)).astype(np.float32),
             "words": rng.integers(9, size=(1, 7)).astype(np.int32)}  # fmt: skip
    own = Interpreter(model_path=str(path))
    details = own.get_input_details()
    by_rank = {4: given["image"], 2: given["words"]}
    shapes = [by_rank[len(detail["shape"])].shape for detail in details]
    for detail, shape in zip(details, shapes, strict=True):
        own.resize_tensor_input(detail["index"], shape)
    other = Interpreter(model_content=resize_inputs(path.read_bytes(), shapes))
    for interpreter in (own, other):
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], by_rank[len(detail["shape"])])
        interpreter.invoke()
    for one, two_ in zip(own.get_output_details(), other.get_output_details(), strict=True):
        np.testing.assert_allclose(
            own.get_tensor(one["index"]), other.get_tensor(two_["index"]), atol=1e-6
        )


def test_a_copy_at_known_sizes_is_no_converted_file(tmp_path: Path) -> None:
    """The file of 'net' in float32, and the copy of 'net.float32', had one path."""
    import keras

    inputs = keras.Input((None, None, 3))
    for name, width in (("net", 4), ("wide", 64)):
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(width, 3)(inputs))
        keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / f"{name}.keras")
    keras.models.load_model(tmp_path / "wide.keras").export(tmp_path / "wide", verbose=False)
    file = tmp_path / "net.float32.tflite"
    convert_litert(str(tmp_path / "wide"), str(file), "float32", None)
    result = bench([tmp_path / "net.keras", file], budget=0.5, input_shape=(8, 9, 3))
    sizes = {row.model: row.size_bytes for row in result.timed}
    # 27 weights of a filter, four bytes each
    assert sizes["net.float32"] - sizes["net"] > 27 * (64 - 4) * 4


@pytest.mark.slow
def test_what_litert_refuses_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """A loop that was saved for an open batch holds lists of open sizes."""
    import keras

    layers = [keras.Input((5, 6)), keras.layers.LSTM(4)]
    keras.Sequential(layers).export(tmp_path / "lstm", verbose=False)
    result = bench(tmp_path / "lstm", QUICK)
    assert [row.runtime for row in result.timed] == ["tensorflow"]
    (skipped,) = result.skipped
    assert "LiteRT's converter refused 'lstm' (float32): an operation needs" in skipped.reason
    assert result.models[0].macs == 5 * 4 * (24 + 16)
    with pytest.raises(InputError, match="refused 'lstm'.*Give --runtimes tensorflow, which runs"):
        bench(tmp_path / "lstm", budget=0.5)


def test_signatures_and_texts(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(np.ones((4, 3), np.float32))
    number, text = tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.string)
    module.a = tf.function(lambda x: {"y": x @ module.kernel}, input_signature=[number])
    module.b = tf.function(lambda x: {"y": x @ module.kernel @ tf.ones((3, 5))},
                           input_signature=[number])  # fmt: skip
    module.c = tf.function(lambda x: {"y": tf.strings.length(x)}, input_signature=[text])
    signatures = {"a": module.a, "b": module.b, "c": module.c}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    with pytest.raises(InputError, match="must be named. Received: none, of a, b, c. Give --signa"):
        bench(tmp_path / "m", QUICK)
    assert bench(tmp_path / "m", QUICK, signature="b").models[0].macs == 12 + 15
    with pytest.raises(InputError, match="must be numbers. Received: 'x', which takes texts"):
        bench(tmp_path / "m", QUICK, signature="c")


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder that holds saved_model.pb. Received: folder"):
        collect_models(tmp_path)
    with pytest.raises(InputError, match="or be the folder of a SavedModel. Received: 'm.txt'"):
        collect_models("m.txt")
    for place in ("a", "b"):
        (tmp_path / place / "m.v1").mkdir(parents=True)
        (tmp_path / place / "m.v1" / "saved_model.pb").touch()
    names = [
        model.name for model in collect_models([tmp_path / "a" / "m.v1", tmp_path / "b" / "m.v1"])
    ]
    assert names == ["m.v1", "m.v1-2"]
