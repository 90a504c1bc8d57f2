"""ONNX files of integers, with the ranges of the model that learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

from compress import InputError, export, quantize
from compress.exporting.onnx import round_to_grid
from compress.measure.runtimes import prepare_session
from tests.compress.quantization.graphs import scatter
from tests.compress.quantization.saturating import INT16, exact, kernels_of, saturated, worst_pairs

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


@pytest.mark.slow
def test_openvino_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from compress.plugins import RUNTIMES

    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype(np.float32)
    made = quantize(net(), x, epochs=0, format="onnx_int8-qat")
    (file,) = made.export(tmp_path / "m.onnx")
    session = RUNTIMES["openvino"].prepare(file.path, 1)
    session.set_inputs([x[:1]])
    session.invoke()
    (found,) = session.results()
    wanted = np.asarray(made.quantized(x[:1], training=False))
    assert np.abs(found - wanted).max() < 0.05
    other = prepare_session(file.path)
    other.set_inputs([x[:1]])
    other.invoke()
    assert np.abs(other.results()[0] - wanted).max() < 0.02


def test_how_products_saturate_without_vnni() -> None:
    x = np.array([[255, 255, 255, 255], [255, 1, 0, 0]], np.uint8)
    kernel = np.array([[127, -128, 64, 65], [127, -128, 64, 65],
                       [1, 1, 64, -65], [1, 1, 64, -65]], np.int8)  # fmt: skip
    # of the first row and column: 255 x 127 x 2 = 64,770 becomes 32,767, and 255 x 2 = 510 is added
    wanted = [[33277, -32258, 65280, 32767 - 32768], [32512, -32768, 16384, 16640]]
    np.testing.assert_array_equal(saturated(x, kernel), wanted)
    assert exact(x, kernel)[0].tolist() == [65280, -64770, 65280, 0]
    assert worst_pairs(kernel.T) == (-255 * 256, 255 * 254)


def steep() -> Any:
    """Returns a net whose weights are as large as each other: pairs of 8 bits overflow."""
    inputs = keras.Input((4, 4, 4))
    x = L.Conv2D(4, 3, activation="relu", kernel_initializer="ones")(inputs)
    x = L.DepthwiseConv2D(2, depthwise_initializer="ones", padding="same")(x)
    x = L.DepthwiseConv2D(2, depth_multiplier=2, depthwise_initializer="ones")(x)
    outputs = L.Dense(3, kernel_initializer="ones")(L.Flatten()(x))
    return keras.Model(inputs, outputs, name="steep")


@pytest.mark.parametrize("format", ["onnx_int8", "onnx_int8-qat"])
def test_no_two_products_of_a_file_overflow_without_vnni(format: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(size=(32, 4, 4, 4)).astype(np.float32)
    if format == "onnx_int8":
        (file,) = export(steep(), tmp_path / "m.onnx", format=format, data=x)
    else:
        (file,) = quantize(steep(), x, epochs=0, format=format).export(tmp_path / "m.onnx")
    kernels = kernels_of(file.path)
    assert len(kernels) == 4
    for kernel, depthwise in kernels:
        low, high = worst_pairs(kernel)
        if depthwise and format == "onnx_int8-qat":
            # MLAS adds products of depthwise convolutions in 32 bits: 8 bits are exact there
            assert np.abs(kernel.astype(int)).max() == 127
            continue
        assert INT16.min <= low < high <= INT16.max
        rows = kernel.reshape(len(kernel), -1).T
        full = np.full((1, len(rows)), 255, np.uint8)
        np.testing.assert_array_equal(saturated(full, rows), exact(full, rows))
        # as these files were with weights of 8 bits
        wide = np.sign(rows) * np.int8(127)
        assert (saturated(full, wide) != exact(full, wide)).all()


def test_what_is_quantized_for_has_its_grid(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    steep = keras.initializers.RandomNormal(stddev=0.5, seed=0)
    features = L.Flatten()(L.Conv2D(8, 3, kernel_initializer=steep)(inputs))
    outputs = L.Dense(5, activation="softmax", kernel_initializer=steep)(features)
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype(np.float32)
    answers = {}
    for format in ("int8-qat", "onnx_int8-qat"):
        made = quantize(model, x, epochs=0, format=format)
        answers[format] = np.asarray(made.quantized(x, training=False))
        (lite,), (onnx,) = (made.export(tmp_path / f"m.{kind}") for kind in ("tflite", "onnx"))
        # each file is checked against the model on the file's own grid
        assert max(lite.max_difference, onnx.max_difference) <= 1.01 / 256
        session = prepare_session(onnx.path)
        furthest = 0.0
        for row, wanted in zip(x[:, None], answers[format], strict=True):
            session.set_inputs([row])
            session.invoke()
            furthest = max(furthest, float(np.abs(session.results()[0] - wanted).max()))
        assert (furthest > 1.01 / 256) == (format == "int8-qat")
        assert ('format="onnx_int8-qat"' in str(onnx.notes)) == (format == "int8-qat")
        assert lite.notes == ()
        # an export leaves the model as it is
        np.testing.assert_array_equal(made.quantized(x, training=False), answers[format])


def test_a_format_that_nothing_is_trained_for_is_refused() -> None:
    x = np.zeros((4, 8, 8, 3), np.float32)
    with pytest.raises(InputError, match="Unknown quantization format 'onnx_int8'"):
        quantize(net(), x, epochs=0, format="onnx_int8")


def test_kernels_are_read_off_their_grids() -> None:
    steps = np.array([0.01, 0.5], np.float32)
    whole = np.array([[127, -3], [64, -127], [0, 5]], np.int8)
    found, numbers = round_to_grid((whole * steps).astype(np.float32), 1, "k", 127)
    np.testing.assert_allclose(found, steps, rtol=1e-6)
    np.testing.assert_array_equal(numbers, whole)
    one, numbers = round_to_grid((whole * steps[0]).astype(np.float32), None, "k", 127)
    assert float(one) == pytest.approx(0.01)
    np.testing.assert_array_equal(numbers, whole)


def test_a_channel_of_zeros() -> None:
    found, numbers = round_to_grid(np.array([[0.0, 1.27], [0.0, 0.02]], np.float32), 1, "k", 127)
    assert numbers.tolist() == [[0, 127], [0, 2]]
    assert found[0] > 0


def test_what_lies_beside_its_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'k' lies 0\.\d+ steps beside its grid"):
        round_to_grid(np.array([1.27, 0.0153], np.float32), None, "k", 127)
