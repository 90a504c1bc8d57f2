"""Files of mixed precision, as LiteRT runs them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress import export
from compress.core.errors import InputError, RunFailed
from compress.exporting.litert import ensure_float32_file, export_litert
from compress.exporting.mixed.search import PrecisionFiles
from compress.exporting.mixed.units import (
    BITS,
    ENTRIES,
    LEVELS,
    find_kernel,
    find_kernel_layers,
    format_scope,
    group_operations,
    read_graph,
)
from compress.exporting.tracing import TracedModel
from compress.measure.file_agreement import compute_divergence
from compress.measure.runtimes import prepare_session
from compress.plan import ExportOptions


@pytest.fixture(scope="module")
def net() -> Any:
    """A net whose second convolution has one channel a thousand times as large as the others."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", name="wide")(x)
    x = keras.layers.Add(name="sum")([x, y])
    x = keras.layers.DepthwiseConv2D(3, name="depth")(x)
    x = keras.layers.Flatten(name="flat")(x)
    outputs = keras.layers.Dense(10, activation="softmax", name="head")(x)
    model = keras.Model(inputs, outputs, name="net")
    kernel = model.get_layer("wide").kernel
    value = kernel.numpy()
    value[..., 0] *= 1000.0
    kernel.assign(value)
    # the head hardly reads that channel: only its range disturbs the others
    weights = model.get_layer("head").kernel.numpy().reshape(-1, 8, 10)
    weights[:, 0] *= 1e-4
    model.get_layer("head").kernel.assign(weights.reshape(-1, 10))
    return model


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).normal(size=(80, 8, 8, 1)).astype(np.float32)


def test_units_are_kernels_with_what_follows(net: Any, tmp_path: Path) -> None:
    export_litert(net, tmp_path / "m.tflite")
    units = group_operations(read_graph(tmp_path / "m.tflite"), find_kernel_layers(net))
    assert [unit.name for unit in units] == ["first", "wide", "depth", "head"]
    assert [unit.kinds[0] for unit in units] == [
        "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
    ]  # fmt: skip
    assert "ADD" in units[1].kinds
    assert all("SOFTMAX" not in unit.kinds for unit in units), "it stays in float32"
    assert [unit.macs for unit in units] == [
        8 * 8 * 9 * 8, 8 * 8 * 9 * 8 * 8, 6 * 6 * 9 * 8, 6 * 6 * 8 * 10,
    ]  # fmt: skip


def test_each_layer_has_a_precision_and_the_file_is_as_close_as_asked(
    net: Any, x: Any, tmp_path: Path
) -> None:
    pytest.importorskip("litert_quantizer")
    (file,) = export(net, tmp_path / "m.tflite", format="int8-mixed", data=x)
    levels = {layer.layer: layer.precision for layer in file.layers}
    assert list(levels) == ["first", "wide", "depth", "head"]
    assert set(levels.values()) <= {"int8", "dynamic", "float16"}
    for layer in file.layers:
        assert layer.alone["float16"] < 0.1 * layer.alone["int8"]
    session = prepare_session(file.path)
    assert {info.dtype for info in (*session.inputs, *session.outputs)} == {"float32"}
    about = json.loads((tmp_path / "m.json").read_text())
    stored = about["files"]["m.tflite"]["precisions"]
    assert [one["precision"] for one in stored] == list(levels.values())
    # what was promised, computed anew: the files' own outputs against the model's
    whole, lowest = net(x[:64]).numpy(), _in_int8(net, x, tmp_path)
    got = np.concatenate([_run(session, one) for one in x[:64]])
    assert compute_divergence([whole], [got]) <= 0.3 * compute_divergence([whole], [lowest]) + 1e-6


def _in_int8(net: Any, x: Any, folder: Path) -> Any:
    """Returns what the net answers with all layers in int8, made by hand."""
    with TracedModel(net) as traced:
        source = ensure_float32_file(traced)
        units = group_operations(read_graph(source), find_kernel_layers(net))
        files = PrecisionFiles(traced, folder, [x], units, 64)
        session = prepare_session(files.build(dict.fromkeys(units, "int8")))
        return np.concatenate([_run(session, one) for one in x[:64]])


def _run(session: Any, one: Any) -> Any:
    session.set_inputs([one[None]])
    session.invoke()
    return session.results()[0]


def test_ranges_are_the_smallest_and_the_largest_of_all_examples(
    net: Any, x: Any, tmp_path: Path
) -> None:
    pytest.importorskip("litert_quantizer")
    import keras

    with TracedModel(net) as traced:
        graph = read_graph(ensure_float32_file(traced))
        units = group_operations(graph, find_kernel_layers(net))
        PrecisionFiles(traced, tmp_path, [x], units, 8)
    ranges = json.loads((tmp_path / "ranges.json").read_text())
    inner = keras.Model(net.input, net.get_layer("sum").output).predict(x, verbose=0)
    (made,) = [op.outputs[0].name for op in graph.operators if op.kind == "ADD"]
    for name, values in ((graph.inputs[0].name, x), (made, inner)):
        assert np.ravel(ranges[name]["min"]) == pytest.approx(values.min(), rel=1e-4)
        assert np.ravel(ranges[name]["max"]) == pytest.approx(values.max(), rel=1e-4)


def test_what_is_slow_in_whole_numbers_stays_in_floats(tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 16))
    x = layers.Dense(16, name="embed")(inputs)
    y = layers.LayerNormalization(name="norm")(x)
    x = layers.Add(name="sum")([x, layers.MultiHeadAttention(2, 8, name="attention")(y, y)])
    x = layers.Dense(32, activation="gelu", name="wide")(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="head")(x))
    x = np.random.default_rng(0).normal(size=(16, 12, 16)).astype(np.float32)
    with TracedModel(model) as traced:
        source = ensure_float32_file(traced)
        units = group_operations(read_graph(source), find_kernel_layers(model))
        files = PrecisionFiles(traced, tmp_path, [x], units, 8)
        made = read_graph(files.build(dict.fromkeys(units, "int8"))).operators
        half = read_graph(files.build(dict.fromkeys(units, "float16"))).operators
    kinds = Counter(f"{op.kind} {op.outputs[0].dtype}" for op in made)
    assert kinds["BATCH_MATMUL float32"] == 2
    assert kinds["SOFTMAX float32"] == 2  # that of the attention, and the last
    assert (kinds["MEAN float32"], kinds["SQUARED_DIFFERENCE float32"]) == (2, 1)
    assert (kinds["RSQRT float32"], kinds["BATCH_MATMUL int8"], kinds["MEAN int8"]) == (1, 0, 0)
    # kernels, the sum, and the activation are integers
    assert kinds["FULLY_CONNECTED int8"] == 7
    assert (kinds["ADD int8"], kinds["GELU int8"]) == (1, 1)
    # halves are not kept from any operation
    assert not any(tensor.is_quantized for op in half for tensor in op.outputs)


def test_precisions_are_as_they_are_said(net: Any, x: Any, tmp_path: Path) -> None:
    pytest.importorskip("litert_quantizer")
    kernels = {"int8": "int8", "dynamic": "int8", "float16": "float16", "float32": "float32"}
    with TracedModel(net) as traced:
        source = ensure_float32_file(traced)
        units = group_operations(read_graph(source), find_kernel_layers(net))
        files = PrecisionFiles(traced, tmp_path, [x], units, 8)
        for level, dtype in kernels.items():
            (wide,) = (
                item for item in read_graph(files.build({units[1]: level})).operators
                if format_scope(item) in units[1].scopes and item.kind == "CONV_2D"
            )  # fmt: skip
            kernel = find_kernel(wide)
            assert kernel is not None
            assert kernel.dtype == dtype, level
            assert wide.outputs[0].dtype == ("int8" if level == "int8" else "float32"), level


@pytest.mark.parametrize("format", ["int16x8", "int4-weights"])
def test_other_formats(format: str, x: Any, tmp_path: Path) -> None:
    import keras

    if format == "int4-weights":
        pytest.importorskip("litert_quantizer")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 1))
    y = keras.layers.Conv2D(32, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(y)), name="plain")
    (file,) = export(model, tmp_path / "m.tflite", format=format, data=x)
    (whole,) = export(model, tmp_path / "f.tflite", format="float32", data=x)
    kernels = {
        tensor.dtype for item in read_graph(file.path).operators for tensor in item.present_inputs
        if tensor.is_weight and len(tensor.shape or ()) > 1
    }  # fmt: skip
    assert kernels == {"int8" if format == "int16x8" else "int4"}
    assert file.path.stat().st_size < 0.7 * whole.path.stat().st_size
    # weights of b bits are off by half a step at most, 1 / (2^b - 2) of the largest of a channel
    values = model(x).numpy()
    step = 1 / 254 if format == "int16x8" else 1 / 14
    got = np.concatenate([_run(prepare_session(file.path), one) for one in x])
    assert 0 < np.abs(got - values).std() < step * values.std()


def test_what_is_asked_must_make_sense(net: Any, x: Any, tmp_path: Path) -> None:
    def made(**settings: Any) -> None:
        export(net, tmp_path / "m.tflite", format="int8-mixed", **{"data": x, **settings})

    with pytest.raises(InputError, match="int8-mixed must have examples to calibrate on"):
        made(data=None)
    with pytest.raises(InputError, match="keeps at most a quarter of the output error of int8"):
        made(mixed_loss=0.1)
    assert not list(tmp_path.iterdir())


def test_levels_have_one_list() -> None:
    assert tuple(ENTRIES) == LEVELS
    assert tuple(BITS) == (*LEVELS, "float32")


@pytest.mark.slow
def test_a_loop_is_one_layer_and_what_passes_in_it_stays_in_floats(tmp_path: Path) -> None:
    import keras

    pytest.importorskip("litert_quantizer")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    x = keras.layers.LSTM(8, name="recurrent")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))
    x = np.random.default_rng(0).normal(size=(40, 6, 4)).astype(np.float32)
    options = ExportOptions(formats=("int8-mixed",))
    (file,) = export(model, tmp_path / "m.tflite", options=options, data=x)
    (loop,) = (
        layer for layer in file.layers if layer.layer == "recurrent" and "int8" not in layer.alone
    )
    assert set(loop.alone) == {"dynamic", "float16"}
    assert loop.precision in loop.alone
    assert file.agreement > 0.9


def test_a_file_that_its_runtime_refuses_is_none(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    x = keras.layers.LayerNormalization()(keras.layers.Dense(8)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="normed")
    x = np.random.default_rng(0).normal(size=(40, 6, 4)).astype(np.float32)
    # TensorFlow's converter writes it; LiteRT has no squared difference of 16 bits
    with pytest.raises(RunFailed, match=r"The int16x8 file cannot be run: .*SquaredDifference"):
        export(model, tmp_path / "m.tflite", format="int16x8", data=x)
    assert not (tmp_path / "m.tflite").exists()


@pytest.fixture(scope="module")
def telling() -> tuple[Any, Any]:
    """A net whose inputs tell of each other, half of its head pruned; and 400 of them."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 2))
    hidden = keras.layers.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    hidden = keras.layers.SeparableConv2D(24, 3, activation="relu", name="apart")(hidden)
    hidden = keras.layers.Flatten()(hidden)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="head")(hidden))
    rng = np.random.default_rng(0)
    head = model.get_layer("head").kernel
    head.assign(np.where(rng.random(head.shape) < 0.5, 0, 3 * head.numpy()))
    x = np.cumsum(rng.normal(size=(400, 8, 8, 2)), axis=1).astype(np.float32)
    return model, x


@pytest.mark.slow
def test_weights_of_four_bits_are_rounded_so_that_outputs_stay(
    telling: tuple[Any, Any], tmp_path: Path
) -> None:
    pytest.importorskip("litert_quantizer")
    model, x = telling
    zeros = model.get_layer("head").kernel.numpy() == 0

    def made(examples: Any, name: str) -> tuple[Any, float]:
        (file,) = export(model, tmp_path / name, format="int4-weights", data=examples)
        session = prepare_session(file.path)
        got = np.concatenate([_run(session, one) for one in x[300:]])
        return file, compute_divergence([model(x[300:]).numpy()], [got])

    (plain, far), (file, near) = made(x[:70], "few.tflite"), made(x[:300], "many.tflite")
    assert plain.notes[-1].startswith(
        "int4-weights: kernels of four bits have the nearest values ("
    )
    assert "at least 20 examples" in plain.notes[-1]
    said = "int4-weights: 3 kernels of four bits are rounded so that their layers' outputs stay"
    assert file.notes[-1].startswith(said)
    assert near < 0.5 * far
    kernels = [find_kernel(operator) for operator in read_graph(file.path).operators]
    assert sorted(kernel.dtype for kernel in kernels if kernel) == ["int4", "int4", "int4", "int8"]
    (dense,) = (kernel for kernel in kernels if kernel and kernel.elements == zeros.size)
    assert dense.nonzero <= np.count_nonzero(~zeros), "what was pruned stays so"
