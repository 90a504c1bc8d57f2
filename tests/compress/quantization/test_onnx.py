"""ONNX files of whole numbers, with the ranges of the model that learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

from compress import quantize
from compress.exporting.onnx_ranges import on_grid
from compress.measure.runtimes import session_for
from tests.compress.quantization.graphs import scatter

L = keras.layers


def net() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = L.ReLU()(L.BatchNormalization()(x))
    y = L.DepthwiseConv2D(3, padding="same")(x)
    x = L.ReLU()(L.Add()([x, y]))
    x = L.MaxPooling2D(2)(x)
    x = L.Conv2D(6, 1, activation="relu6")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, L.Dense(5, activation="softmax")(x), name="net")
    scatter(model, np.random.default_rng(0))
    return model


def test_the_file_holds_whole_numbers_and_answers_alike(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    x = np.random.default_rng(0).normal(size=(128, 8, 8, 3)).astype(np.float32)
    made = quantize(net(), x, epochs=0)
    (file,) = made.export(tmp_path / "m.onnx")
    assert file.format == "onnx_int8-qat"
    assert file.max_difference <= 1.01 / 256  # a step of a softmax
    graph = onnx.load(file.path).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    kernels = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert len(kernels) == 4
    for node in kernels:
        source = makers[node.input[1]]
        assert source.op_type == "DequantizeLinear"
        assert constants[source.input[0]].dtype == np.int8
        assert np.ndim(constants[source.input[1]]) == 1
        if len(node.input) > 2:
            assert constants[makers[node.input[2]].input[0]].dtype == np.int32
    floats = [
        name for name, values in constants.items()
        if values.dtype == np.float32 and values.ndim > 1
    ]  # fmt: skip
    assert floats == []


def test_openvino_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from compress.core.plugins import RUNTIMES

    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    made = quantize(net(), x, epochs=0)
    (file,) = made.export(tmp_path / "m.onnx")
    session = RUNTIMES["openvino"].prepare(file.path, 1)
    session.set_inputs([x[:1]])
    session.invoke()
    (found,) = session.results()
    wanted = np.asarray(made.quantized(x[:1], training=False))
    assert np.abs(found - wanted).max() < 0.05
    other = session_for(file.path)
    other.set_inputs([x[:1]])
    other.invoke()
    assert np.abs(other.results()[0] - wanted).max() < 0.02


def test_kernels_are_read_off_their_grids() -> None:
    steps = np.array([0.01, 0.5], np.float32)
    whole = np.array([[127, -3], [64, -127], [0, 5]], np.int8)
    found, numbers = on_grid((whole * steps).astype(np.float32), 1, "k")
    np.testing.assert_allclose(found, steps, rtol=1e-6)
    np.testing.assert_array_equal(numbers, whole)
    one, numbers = on_grid((whole * steps[0]).astype(np.float32), None, "k")
    assert float(one) == pytest.approx(0.01)
    np.testing.assert_array_equal(numbers, whole)


def test_a_channel_of_zeros() -> None:
    found, numbers = on_grid(np.array([[0.0, 1.27], [0.0, 0.02]], np.float32), 1, "k")
    assert numbers.tolist() == [[0, 127], [0, 2]]
    assert found[0] > 0


def test_what_lies_beside_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'k' lies 0\.\d+ steps beside its grid"):
        on_grid(np.array([1.27, 0.0153], np.float32), None, "k")
