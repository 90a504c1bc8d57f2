"""Many small models in one conversion: each file is that model's, and a refusal costs its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.exporting import batch_conversion
from compress.exporting.batch_conversion import write_latency_files


@keras.saving.register_keras_serializable("tests")
class Inverted(layers.Layer):
    """Needs an operation that LiteRT does not know."""

    def call(self, x: Any) -> Any:
        return keras.ops.svd(x, compute_uv=False)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[:-1]


def models() -> list[Any]:
    image, other = keras.Input((6, 6, 4)), keras.Input((6, 6, 4))
    pair = keras.layers.ReLU()(layers.Add()([image, other]))
    x = keras.Input((5, 8))
    attended = layers.MultiHeadAttention(2, 4)(x, x)
    grouped = keras.Input((7, 7, 4))
    y = layers.Conv2D(8, 3, groups=2)(grouped)
    y = layers.BatchNormalization()(y)
    split = keras.Input((4,))
    sequence = keras.Input((6, 3))
    return [
        keras.Model([image, other], pair),
        keras.Model(x, attended),
        keras.Model(grouped, layers.Dropout(0.5)(y)),
        keras.Model(split, [layers.Dense(2)(split), layers.Dense(3)(split)]),
        keras.Model(sequence, layers.GRU(5)(sequence)),  # a loop: it has subgraphs of its own
        keras.Model(sequence, layers.LSTM(5)(sequence)),
    ]


def run(file: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file))
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def test_each_file_computes_what_its_model_does(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    made = models()
    for model in made:
        model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    files = write_latency_files(made, tmp_path)
    assert files == [tmp_path / f"{place}.tflite" for place in range(len(made))]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for model, file in zip(made, files, strict=True):
        given = [
            rng.normal(size=(1, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs
        ]
        wanted = keras.tree.flatten(model(given if len(given) > 1 else given[0], training=False))
        assert isinstance(file, Path)
        for one, two in zip(run(file, given), wanted, strict=True):
            assert np.allclose(one, two, atol=1e-4), model.name


def test_a_file_holds_its_own_weights_alone(tmp_path: Path) -> None:
    x = keras.Input((100,))
    wide, narrow = keras.Model(x, layers.Dense(500)(x)), keras.Model(x, layers.Dense(1)(x))
    files = write_latency_files([wide, narrow], tmp_path)
    sizes = [file.stat().st_size for file in files if isinstance(file, Path)]
    assert 4 * 50_000 < sizes[0] < 4 * 50_000 + 8000
    assert sizes[1] < 8000


def test_weights_that_are_converted_at_once_are_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[list[int]] = []
    convert = batch_conversion._convert_joined

    def record(models: list[Any], *arguments: Any) -> Any:
        sizes.append([model.count_params() for model in models])
        return convert(models, *arguments)

    monkeypatch.setattr(batch_conversion, "_convert_joined", record)
    monkeypatch.setattr(batch_conversion, "JOINED_BYTES", 4 * 2500)
    x = keras.Input((10,))
    widths = (100, 100, 300, 10)  # 11 weights a unit
    made = [keras.Model(x, layers.Dense(width)(x)) for width in widths]
    files = write_latency_files(made, tmp_path)
    assert sizes == [[1100, 1100], [3300], [110]]
    given = np.random.default_rng(0).normal(size=(1, 10)).astype(np.float32)
    for model, file in zip(made, files, strict=True):
        assert isinstance(file, Path)
        np.testing.assert_allclose(run(file, [given])[0], model(given), atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "dynamic", "int8"])
def test_other_formats(kind: str, tmp_path: Path) -> None:
    x = keras.Input((64,))
    model = keras.Model(x, layers.Dense(64)(x))
    for name in ("float32", kind):
        (tmp_path / name).mkdir()
    (plain,), (file,) = (
        write_latency_files([model], tmp_path / name, name) for name in ("float32", kind)
    )
    assert isinstance(plain, Path)
    assert isinstance(file, Path)
    assert file.stat().st_size < 0.75 * plain.stat().st_size
    dtype = np.int8 if kind == "int8" else np.float32
    assert run(file, [np.zeros((1, 64), dtype)])[0].dtype == dtype


def test_what_is_refused_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by halving: not by as many conversions as there are models."""
    x = keras.Input((4,))
    good = [keras.Model(x, layers.Dense(units)(x)) for units in range(1, 8)]
    square = keras.Input((3, 3))
    bad = keras.Model(square, Inverted()(square))
    calls: list[int] = []
    own = batch_conversion._convert_joined

    def counted(models: list[Any], folder: Path, kind: str) -> bytes:
        calls.append(len(models))
        return own(models, folder, kind)

    monkeypatch.setattr(batch_conversion, "_convert_joined", counted)
    files = write_latency_files([*good[:5], bad, *good[5:]], tmp_path)
    assert calls == [8, 4, 4, 2, 1, 1, 2]
    assert [isinstance(file, str) for file in files] == [place == 5 for place in range(8)]
    assert "Svd" in str(files[5])
    assert write_latency_files([], tmp_path) == []


def test_a_normalization_that_leaves_only_zeros_gets_the_statistics_of_its_inputs(
    tmp_path: Path,
) -> None:
    """As in a slice of a trained model; XNNPACK refuses int8 files of such a range."""
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    normalization = model.layers[2]
    normalization.moving_mean.assign(np.full(8, 1e6))
    before = model.get_weights()
    (file,) = write_latency_files([model], tmp_path, "int8")
    assert isinstance(file, Path)
    assert len(run(file, [np.zeros((1, 8, 8, 3), np.int8)])[0]) == 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
