"""Recurrent layers as one operation of LiteRT and ONNX: Keras's outputs, every example anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress import quantize
from compress.exporting.batch_conversion import write_latency_files
from compress.exporting.litert import ensure_float32_file, export_litert
from compress.exporting.onnx import export_onnx
from compress.exporting.recurrent import MOST, SHUT, compute_shut_feature
from compress.exporting.tflite_editing import quantize_lstms
from compress.exporting.tracing import TracedModel
from compress.measure.file_agreement import compute_outputs
from compress.measure.runtimes import prepare_session

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
STEPS, FEATURES = 7, 5


def operations(path: Path) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter

    return Counter(item["op_name"] for item in Interpreter(str(path))._get_ops_details())


def ran(path: Path, x: Any) -> Any:
    """The outputs of one interpreter, one example after the other."""
    return compute_outputs(prepare_session(path), [x])[0]


def net(*layers: Any) -> keras.Model:
    """Layers in a chain, with weights so large that the state moves all gates."""
    inputs = keras.Input((STEPS, FEATURES))
    x = inputs
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.ndim:
            variable.assign(rng.normal(0.0, 2.0, variable.shape))
    return model


def two() -> keras.Model:
    lstm = keras.layers.LSTM
    return net(lstm(4, return_sequences=True), lstm(3))


def examples(count: int = 20) -> Any:
    # some far outside: the state is full when the next example comes
    scale = np.where(np.arange(count) % 3, 1.0, 30.0)[:, None, None]
    found = scale * np.random.default_rng(1).normal(size=(count, STEPS, FEATURES))
    return found.astype(np.float32)


NETS: dict[str, tuple[Callable[[], keras.Model], int]] = {
    "last": (lambda: net(keras.layers.LSTM(4)), 1),
    "two": (two, 2),
    "backwards": (
        lambda: net(keras.layers.LSTM(4, go_backwards=True, return_sequences=True)), 1,
    ),
    "both ways": (lambda: net(keras.layers.Bidirectional(keras.layers.LSTM(4))), 2),
    "no bias": (lambda: net(keras.layers.LSTM(4, use_bias=False)), 1),
    "dropout": (lambda: net(keras.layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5)), 1),
    "inside": (lambda: net(two()), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_one_operation_a_layer_with_the_outputs_of_keras(name: str, tmp_path: Path) -> None:
    make, layers = NETS[name]
    model, path = make(), tmp_path / "m.tflite"
    export_litert(model, path)
    assert operations(path)[FUSED] == layers
    assert not operations(path)["WHILE"]
    x = examples()
    np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=5e-6)


@pytest.mark.slow
def test_of_several_files_in_one_conversion_too(tmp_path: Path) -> None:
    models = [make() for make, _ in NETS.values()]
    x = examples()
    for model, path in zip(models, write_latency_files(models, tmp_path), strict=True):
        assert isinstance(path, Path), path
        assert operations(path)[FUSED]
        np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=5e-6)


@pytest.mark.parametrize("kind", ["float16", "dynamic"])
def test_no_example_is_touched_by_the_one_before(kind: str, tmp_path: Path) -> None:
    # wide enough for weights in int8
    model = net(keras.layers.LSTM(40, return_sequences=True), keras.layers.LSTM(40))
    path, x = tmp_path / "m.tflite", examples(6)
    export_litert(model, path, kind)
    assert operations(path)[FUSED] == 2
    alone = [ran(path, x[place : place + 1])[0] for place in range(len(x))]
    np.testing.assert_allclose(ran(path, x), alone, atol=1e-6)


def test_weights_in_int8_lose_nothing_by_what_shuts_the_gates(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((28, 28))
    model = keras.Model(inputs, keras.layers.LSTM(64)(inputs))
    x = np.random.default_rng(0).uniform(size=(50, 28, 28)).astype(np.float32)
    export_litert(model, tmp_path / "m.tflite", "dynamic")
    found = ran(tmp_path / "m.tflite", x)
    # with weights of -100 beside those of 0.1 it is above 0.04
    assert np.abs(found - model.predict(x, verbose=0)).max() < 0.02


def constants(path: Path) -> list[tuple[Any, float]]:
    """The int8 matrices of the file's LSTMs, with their scales, in the order of its inputs."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if code.builtinCode == schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM:
            assert operator.builtinOptions.asymmetricQuantizeInputs
            assert code.version >= 3
            for place in operator.inputs[1:9]:
                tensor = graph.tensors[place]
                assert tensor.type == schema.TensorType.INT8
                values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8)
                found.append((values.reshape(tensor.shape), float(tensor.quantization.scale[0])))
    return found


def test_what_is_trained_for_whole_numbers_has_weights_of_8_bits(tmp_path: Path) -> None:
    # wide enough for the converter, which leaves small weights as they are
    model = net(keras.layers.LSTM(180, return_sequences=True), keras.layers.LSTM(40))
    zeros = model.layers[1].cell.recurrent_kernel
    zeros.assign(np.where(np.arange(720) % 2, zeros.numpy(), 0.0))
    x = examples(30)
    export_litert(model, tmp_path / "by_weights.tflite", "dynamic")
    made = quantize(model, x, epochs=0)
    (file,) = made.export(tmp_path / "m.tflite")
    assert "weights have 8 bits" in " ".join(call.reason for call in made.placed)
    wanted, found = constants(tmp_path / "by_weights.tflite"), constants(file.path)
    assert len(found) == len(wanted) == 16
    for (values, scale), (theirs, their_scale) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(scale, their_scale, rtol=1e-6)
        # one may lie between two steps
        assert np.abs(values.astype(int) - theirs).max() <= 1
        assert (values == theirs).mean() > 0.999
    assert np.all(found[4][0][::2] == 0)
    assert operations(file.path)["WHILE"] == 0
    # nor do the floats stay in the file beside them
    assert file.path.stat().st_size < 1.1 * (tmp_path / "by_weights.tflite").stat().st_size
    alone = [ran(file.path, x[place : place + 1])[0] for place in range(6)]
    np.testing.assert_allclose(ran(file.path, x[:6]), alone, atol=1e-6)


def test_weights_that_layers_share_are_rounded_once(tmp_path: Path) -> None:
    lstm = keras.layers.LSTM(4)
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, keras.layers.Concatenate()([lstm(inputs), lstm(2.0 * inputs)]))
    (file,) = quantize(model, examples(), epochs=0).export(tmp_path / "m.tflite")
    found = constants(file.path)
    assert len(found) == 16
    for (one, scale), (two, same) in zip(found[:8], found[8:], strict=True):
        assert scale == same
        np.testing.assert_array_equal(one, two)
    assert file.agreement > 0.9


def test_files_without_lstms_are_left_as_they_are(tmp_path: Path) -> None:
    export_litert(net(keras.layers.GRU(4)), tmp_path / "m.tflite")
    content = (tmp_path / "m.tflite").read_bytes()
    assert quantize_lstms(content) is content


LOOPS: dict[str, Callable[[], keras.Model]] = {
    "another activation": lambda: net(keras.layers.LSTM(4, activation="relu")),
    "another gate": lambda: net(keras.layers.LSTM(4, recurrent_activation="hard_sigmoid")),
    "a mask": lambda: net(keras.layers.Masking(), keras.layers.LSTM(4)),
    "a state handed out": lambda: net(lambda x: keras.layers.LSTM(4, return_state=True)(x)[2]),
    "a state handed in": lambda: net(
        lambda x: keras.layers.LSTM(4)(x, initial_state=[x[:, 0, :4], x[:, 1, :4]])
    ),
    "a cell": lambda: net(keras.layers.RNN(keras.layers.LSTMCell(4))),
}


@pytest.mark.parametrize("name", LOOPS)
def test_what_the_operation_does_not_compute_stays_a_loop(name: str, tmp_path: Path) -> None:
    model, path = LOOPS[name](), tmp_path / "m.tflite"
    export_litert(model, path)
    assert not operations(path)[FUSED]
    x = examples(5)
    np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


def test_sparse_weights_stay_sparse(tmp_path: Path) -> None:
    model = net(keras.layers.LSTM(64, return_sequences=True), keras.layers.LSTM(48))
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.ndim == 2:
            shown = rng.random(variable.shape) < 0.1
            variable.assign(np.where(shown, rng.normal(0.0, 0.3, variable.shape), 0.0))
    sizes, x = {}, examples()
    for kind in ("float32", "sparse"):
        path = tmp_path / f"{kind}.tflite"
        export_litert(model, path, kind)
        sizes[kind] = path.stat().st_size
        np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=5e-6)
    # a tenth of 4 bytes each, and where they are
    assert sizes["sparse"] < 0.35 * sizes["float32"]


def test_a_layer_may_be_of_several_models(tmp_path: Path) -> None:
    model = two()
    paths = write_latency_files([model, model], tmp_path)
    assert [operations(path)[FUSED] for path in paths if isinstance(path, Path)] == [2, 2]
    assert not any("call" in vars(layer) for layer in model.layers)


def test_the_model_is_as_it_was(tmp_path: Path) -> None:
    model = two()
    export_litert(model, tmp_path / "m.tflite")
    assert not any("call" in vars(layer) for layer in model.layers)
    with TracedModel(model) as traced:
        assert operations(ensure_float32_file(traced))["WHILE"] == 2


ONNX: dict[str, tuple[Callable[[], keras.Model], str, int]] = {
    "last": (lambda: net(keras.layers.LSTM(4)), "LSTM", 1),
    "two": (two, "LSTM", 2),
    "backwards": (lambda: net(keras.layers.LSTM(4, go_backwards=True)), "LSTM", 1),
    # one operation computes both directions
    "both ways": (lambda: net(keras.layers.Bidirectional(keras.layers.LSTM(4))), "LSTM", 1),
    "no bias": (lambda: net(keras.layers.LSTM(4, use_bias=False)), "LSTM", 1),
    "gru": (
        lambda: net(keras.layers.GRU(4, return_sequences=True), keras.layers.GRU(3)), "GRU", 2,
    ),
    "gru, no bias": (lambda: net(keras.layers.GRU(4, use_bias=False)), "GRU", 1),
}  # fmt: skip


def nodes(path: Path) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", ONNX)
def test_onnx_has_one_operation_a_layer(name: str, tmp_path: Path) -> None:
    make, kind, layers = ONNX[name]
    model, path, x = make(), tmp_path / "m.onnx", examples()
    export_onnx(model, path)
    assert (nodes(path)[kind], nodes(path)["Loop"]) == (layers, 0)
    np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.slow
def test_onnx_of_several_files_in_one_conversion_too(tmp_path: Path) -> None:
    models, x = [make() for make, _, _ in ONNX.values()], examples(5)
    for model, path, (_, kind, _) in zip(
        models, write_latency_files(models, tmp_path, "onnx"), ONNX.values(), strict=True
    ):
        assert isinstance(path, Path), path
        assert nodes(path)[kind]
        np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=1e-5)


def test_a_gru_that_resets_before_the_matrix_stays_a_loop(tmp_path: Path) -> None:
    model, path, x = net(keras.layers.GRU(4, reset_after=False)), tmp_path / "m.onnx", examples(5)
    export_onnx(model, path)
    assert nodes(path)["Loop"] == 1
    np.testing.assert_allclose(ran(path, x), model.predict(x, verbose=0), atol=1e-5)


class TestShutting:
    def test_gates_are_shut_by_forty_whatever_the_state(self) -> None:
        rng = np.random.default_rng(0)
        kernel, recurrent, bias = (rng.normal(size=shape) for shape in ((5, 16), (4, 16), (16,)))
        value, weights = compute_shut_feature(kernel, recurrent, bias)
        for state in rng.uniform(-1.0, 1.0, (100, 4)):
            gates = (value * weights[0] + state @ recurrent + bias).reshape(4, 4)
            assert gates[[0, 1, 3]].max() <= -SHUT + 1e-4
        for gate in (0, 1, 3):
            largest = np.abs(kernel.reshape(5, 4, 4)[:, gate]).max()
            assert np.abs(weights.reshape(4, 4)[gate]).max() <= largest + 1e-6

    def test_small_weights_leave_the_feature_a_half_float(self) -> None:
        value, weights = compute_shut_feature(
            np.full((5, 16), 1e-9), np.zeros((4, 16)), np.zeros(16)
        )
        assert value == pytest.approx(MOST)
        assert weights[0, 0] == pytest.approx(-SHUT / MOST)
