"""Graphs of LiteRT files and SavedModels against arithmetic by hand and the Keras model's count."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.exporting.litert import convert_litert, export_litert
from compress.measure import count_macs
from compress.measure.graph_files import GraphFile, read_graph_file
from compress.measure.graph_files.tables import TENSORFLOW, TFLITE, CostTable

BRANCHES = {
    "strided": 5 * 5 * 9 * 4 * 8,
    "valid": 8 * 8 * 9 * 4 * 8,
    "dilated": 6 * 6 * 9 * 4 * 8,
    "grouped": 8 * 8 * 9 * 2 * 8,
    "depthwise": 8 * 8 * 9 * 8,
    "transposed": 10 * 10 * 9 * 4 * 5,
    "dense": 10 * 10 * 4 * 7,
}
"""MACs by hand: each branch takes 10 x 10 x 4."""
PARAMS = (9 * 4 * 8 + 8) * 3 + (9 * 2 * 8 + 8) + (9 * 8 + 8) + (9 * 4 * 5 + 5) + (4 * 7 + 7)


@pytest.fixture(scope="module")
def branches() -> Any:
    """One layer of each kind side by side, biases that are not zero."""
    import keras
    from keras import layers as L

    keras.utils.set_random_seed(0)
    x = keras.Input((10, 10, 4), name="image")
    made = [
        L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="strided")(x),
        L.Conv2D(8, 3, name="valid")(x),
        L.Conv2D(8, 3, dilation_rate=2, name="dilated")(x),
        L.Conv2D(8, 3, groups=2, name="grouped")(x),
        L.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x),
        L.Conv2DTranspose(5, 3, strides=2, padding="same", name="transposed")(x),
        L.Dense(7, name="dense")(x),
    ]
    return filled(keras.Model(x, made, name="branches"))


def filled(model: Any) -> Any:
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape, scale=0.3) for w in model.get_weights()])
    return model


def examples(model: Any) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.normal(size=(8, *x.shape[1:])).astype(np.float32) for x in model.inputs]


def exported(model: Any, folder: Path, kind: str) -> GraphFile:
    path = folder / f"{kind}.tflite"
    export_litert(model, path, kind, representative=examples(model))
    return read_graph_file(path)


def saved(model: Any, folder: Path) -> GraphFile:
    model.export(folder / "saved", verbose=False)
    return read_graph_file(folder / "saved")


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_convolutions_of_a_file_by_hand(kind: str, branches: Any, tmp_path: Path) -> None:
    found = exported(branches, tmp_path, kind)
    costs, keras_costs = found.costs, count_macs(branches)
    assert costs.unsupported == ()
    assert sorted(row.macs for row in costs.layers if row.macs) == sorted(BRANCHES.values())
    assert costs.macs == sum(BRANCHES.values()) == keras_costs.macs
    assert costs.params == PARAMS == keras_costs.params == branches.count_params()
    assert costs.by_class()["DEPTHWISE_CONV_2D"] == BRANCHES["depthwise"]
    assert costs.by_class()["TRANSPOSE_CONV"] == BRANCHES["transposed"]
    assert costs.by_class()["FULLY_CONNECTED"] == BRANCHES["dense"]
    assert found.size_bytes == (tmp_path / f"{kind}.tflite").stat().st_size
    (taken,) = found.inputs
    assert (taken.name, taken.shape) == ("input", (1, 10, 10, 4))
    assert taken.dtype == ("int8" if kind == "int8" else "float32")
    assert bool(taken.scale) == (kind == "int8")
    assert len(found.outputs) == 7
    # the same through the public call
    assert count_macs(tmp_path / f"{kind}.tflite") == costs


def test_convolutions_of_a_saved_model_by_hand(branches: Any, tmp_path: Path) -> None:
    found = saved(branches, tmp_path)
    costs = found.costs
    assert costs.unsupported == ()
    assert sorted(row.macs for row in costs.layers if row.macs) == sorted(BRANCHES.values())
    assert costs.params == PARAMS
    # a grouped convolution lies in a function that XLA compiles
    grouped = [row for row in costs.layers if "grouped" in row.name and row.macs]
    assert [(row.kind, row.macs, row.output_shape) for row in grouped] == [
        ("Conv2D", BRANCHES["grouped"], (8, 8, 8))
    ]
    assert found.signature == "serving_default"
    assert [(port.name, port.shape, port.dtype) for port in found.inputs] == [
        ("image", (None, 10, 10, 4), "float32")
    ]
    assert found.size_bytes == sum(p.stat().st_size for p in found.path.rglob("*") if p.is_file())


def attention(layers: Any) -> Any:
    import keras

    query, value = keras.Input((5, 6), name="query"), keras.Input((7, 6), name="value")
    made = layers.MultiHeadAttention(2, 3, value_dim=4, name="attention")(query, value)
    return keras.Model([query, value], made)


def one(shape: tuple[int, ...], *layers: Any) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


PROJECTED = 5 * 6 * 2 * 3 + 7 * 6 * 2 * 3 + 7 * 6 * 2 * 4 + 5 * 2 * 4 * 6
CASES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "attention": (attention, PROJECTED + 2 * 5 * 7 * (3 + 4)),
    "Conv1D": (lambda k: one((20, 3), k.Conv1D(6, 5)), 16 * 5 * 3 * 6),
    "Conv1DTranspose": (
        lambda k: one((20, 3), k.Conv1DTranspose(6, 5, strides=2)), 20 * 5 * 3 * 6,
    ),
    "Conv3D": (lambda k: one((4, 4, 4, 3), k.Conv3D(2, 2)), 27 * 8 * 3 * 2),
    "LSTM": (lambda k: one((5, 6), k.LSTM(4), k.Dense(3)), 5 * 4 * (24 + 16) + 12),
    "GRU": (lambda k: one((5, 6), k.GRU(4, return_sequences=True)), 5 * 3 * (24 + 16)),
    "separable": (lambda k: one((5, 5, 6), k.SeparableConv2D(7, 3)), 9 * 9 * 6 + 9 * 6 * 7),
    "embedding": (
        lambda k: one((9,), k.Embedding(50, 8), k.GlobalAveragePooling1D(), k.Dense(3)), 24,
    ),
    "einsum": (lambda k: one((5, 6), k.EinsumDense("abc,cd->abd", (5, 7))), 5 * 6 * 7),
}  # fmt: skip

# one step before the first, and one feature that is set in it: see compress.exporting.recurrent
IN_FILES = {"LSTM": (6 * 4 * (28 + 16) + 12, 16 + 7), "separable": (CASES["separable"][1], 6)}
"""MACs of a file, and parameters that the model has not; the converter gives a depthwise
convolution a bias of zeros."""


@pytest.mark.parametrize("case", CASES)
def test_both_kinds_of_graphs_by_hand(case: str, tmp_path: Path) -> None:
    from keras import layers

    build, macs = CASES[case]
    model = filled(build(layers))
    graph = saved(model, tmp_path).costs
    file = exported(model, tmp_path, "float32").costs
    assert (graph.unsupported, file.unsupported) == ((), ())
    in_file, more = IN_FILES.get(case, (macs, 0))
    assert (graph.macs, file.macs, count_macs(model).macs) == (macs, in_file, macs)
    assert graph.params == model.count_params()
    assert file.params == model.count_params() + more


def test_batchnorm_is_folded_into_a_file_and_not_into_a_saved_model(tmp_path: Path) -> None:
    from keras import layers as L

    model = one((8, 8, 3), L.Conv2D(4, 3, use_bias=False), L.BatchNormalization(), L.ReLU())
    model.set_weights([np.abs(w) + 0.1 for w in filled(model).get_weights()])
    assert saved(model, tmp_path).costs.params == model.count_params() == 9 * 3 * 4 + 4 * 4
    assert exported(model, tmp_path, "float32").costs.params == 9 * 3 * 4 + 4


def test_zeros_of_integers_are_zeros(tmp_path: Path) -> None:
    from keras import layers as L

    model = filled(one((8, 8, 2), L.Conv2D(4, 3, use_bias=False)))
    (kernel,) = model.get_weights()
    kernel[..., :2] = 0.0
    model.set_weights([kernel])
    for costs in (exported(model, tmp_path, kind).costs for kind in ("float32", "int8", "float16")):
        assert costs.params == 72 + 4  # and a bias of zeros, which the converter adds
        assert 36 - 2 <= costs.nonzero <= 36  # small numbers may be rounded to 0
        assert costs.sparse_macs == round(costs.macs * costs.nonzero / 72)


def test_open_sizes_are_given(tmp_path: Path) -> None:
    import keras
    from keras import layers as L

    table, image = keras.Input((None, 4), name="table"), keras.Input((None, None, 3), name="image")
    seen = L.GlobalAveragePooling2D()(L.Conv2D(5, 3, padding="same")(image))
    read = L.GlobalAveragePooling1D()(L.Conv1D(6, 1)(table))
    keras.Model([table, image], [seen, read]).export(tmp_path / "m", verbose=False)
    with pytest.raises(InputError, match=r"known input size to be counted.*image \(None, None, 3"):
        read_graph_file(tmp_path / "m")
    macs = 8 * 9 * 27 * 5 + 7 * 4 * 6
    shape = {"image": (8, 9, 3), "table": (7, 4)}
    assert count_macs(tmp_path / "m", shape).macs == macs
    # LiteRT works out the sizes of a file that leaves them open
    convert_litert(str(tmp_path / "m"), str(tmp_path / "m.tflite"), "float32", None)
    ports = {port.name: port.shape for port in read_graph_file(tmp_path / "m.tflite").inputs}
    assert ports == {"image": (None, None, None, 3), "table": (None, None, 4)}
    assert count_macs(tmp_path / "m.tflite", shape).macs == macs
    unknown = count_macs(tmp_path / "m.tflite")
    assert unknown.macs == 0
    assert all("an input size is unknown" in text for text in unknown.unsupported)
    assert len(unknown.unsupported) == 2
    with pytest.raises(InputError, match=r"agree with input 'image' of .*m.tflite', which takes"):
        count_macs(tmp_path / "m.tflite", {"image": (8, 9, 4), "table": (7, 4)})


def test_loops_and_branches_that_depend_on_values_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    kernel = tf.constant(np.ones((4, 4), np.float32))

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4)), tf.TensorSpec((), tf.int32)])
        def loop(self, x: Any, count: Any) -> Any:
            return {
                "y": tf.while_loop(lambda i, y: i < count, lambda i, y: (i + 1, y @ kernel),
                                   (tf.constant(0), x))[1]
            }  # fmt: skip

        @tf.function(input_signature=[tf.TensorSpec((1, 4))])
        def branch(self, x: Any) -> Any:
            chosen = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ kernel, lambda: x)
            return {"y": chosen @ kernel}

    module = Module()
    signatures = {"loop": module.loop, "branch": module.branch}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    with pytest.raises(InputError, match=r"One signature .* must be named.*branch, loop. Give --s"):
        read_graph_file(tmp_path / "m")
    with pytest.raises(InputError, match="Unknown signature of .*Choices: branch, loop"):
        read_graph_file(tmp_path / "m", signature="serve")
    loop = read_graph_file(tmp_path / "m", signature="loop").costs
    assert loop.macs == 0
    (text,) = loop.unsupported
    assert "(MatMul): in a loop: how many rounds it takes is not in the graph" in text
    branch = read_graph_file(tmp_path / "m", signature="branch").costs
    assert branch.macs == 16  # behind the branch
    (text,) = branch.unsupported
    assert "(MatMul): in a branch" in text
    assert branch.params == 16  # read twice, counted once


@pytest.mark.slow
def test_a_saved_model_of_keras_2(tmp_path: Path) -> None:
    import tf_keras

    x = tf_keras.Input((5, 6), name="steps")
    y = tf_keras.layers.LSTM(4)(x)
    tf_keras.Model(x, tf_keras.layers.Dense(3)(y)).save(tmp_path / "old", save_format="tf")
    found = read_graph_file(tmp_path / "old")
    assert found.costs.unsupported == ()
    assert found.costs.macs == 5 * 4 * (6 * 4 + 4 * 4) + 4 * 3
    assert found.costs.params == 4 * (6 * 4 + 4 * 4 + 4) + 4 * 3 + 3
    assert "a SavedModel of Keras 2" in found.file_kind.limitation
    assert "save it as .h5" in found.file_kind.limitation


@pytest.mark.slow
def test_a_fused_recurrent_layer(tmp_path: Path) -> None:
    """The converter makes one operator of a layer of Keras 2."""
    import tf_keras

    x = tf_keras.Input((5, 6), batch_size=1)
    model = tf_keras.Model(x, tf_keras.layers.LSTM(4, return_sequences=True)(x))
    model.save(tmp_path / "old", save_format="tf")
    convert_litert(str(tmp_path / "old"), str(tmp_path / "m.tflite"), "float32", None)
    costs = count_macs(tmp_path / "m.tflite")
    assert costs.by_class() == {"UNIDIRECTIONAL_SEQUENCE_LSTM": 5 * 4 * (6 * 4 + 4 * 4)}


def test_operators_that_are_not_litert_s_own_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4))])
    def serve(x: Any) -> Any:
        return {"y": tf.linalg.inv(x), "z": tf.math.atan(tf.math.erf(x))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    costs = count_macs(tmp_path / "m.tflite")
    (text,) = costs.unsupported
    assert "(FlexMatrixInverse): an operator that is not LiteRT's own" in text
    assert {"FlexErf", "FlexAtan"} <= {row.kind for row in costs.layers if row.macs == 0}


def kinds(table: CostTable) -> list[str]:
    """All kinds that have a place, each as often as it has one."""
    return [*table.rules, *table.equivalent_classes, *table.reasons, *table.loops, *table.branches,
            *table.calls, *table.sources]  # fmt: skip


def test_every_operator_of_litert_has_a_place() -> None:
    from ai_edge_litert import schema_py_generated as schema

    shipped = {name for name in vars(schema.BuiltinOperator) if not name.startswith("_")}
    assert shipped == {kind for kind in kinds(TFLITE) if not kind.startswith("Flex")}
    for table in (TFLITE, TENSORFLOW):
        assert len(kinds(table)) == len(set(kinds(table)))


def test_every_operation_of_the_table_is_tensorflow_s() -> None:
    import tensorflow as tf

    known = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    private = {"Const", "If", "While", "StatelessIf", "StatelessWhile", "Case", "StatelessCase"}
    assert set(kinds(TENSORFLOW)) - known - private == set()


def test_what_texts_are_fed_to_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(
        lambda text: {"size": tf.strings.length(text)},
        input_signature=[tf.TensorSpec((None,), tf.string, name="text")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=module.serve)
    with pytest.raises(InputError, match="must be numbers. Received: 'text', which takes texts"):
        read_graph_file(tmp_path / "m")


def test_damaged_files_are_refused(tmp_path: Path, branches: Any) -> None:
    path = tmp_path / "m.tflite"
    export_litert(branches, path)
    whole = path.read_bytes()
    for content, message in (
        (b"", "must be a LiteRT file. Received: an empty file"),
        (b"nothing at all", "must be a LiteRT file. Received: another file, or a corrupt one"),
        (whole[: len(whole) // 2], "must be a whole LiteRT file. Received: a corrupt one"),
        (whole[:64] + bytes(64) + whole[128:], "must be a whole LiteRT file"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_graph_file(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="a folder that holds saved_model.pb. Received: folder"):
        read_graph_file(tmp_path / "folder")
    (tmp_path / "folder" / "saved_model.pb").write_bytes(b"nothing")
    with pytest.raises(InputError, match="TensorFlow must be able to load .*folder"):
        read_graph_file(tmp_path / "folder")
    with pytest.raises(InputError, match="A model file must exist"):
        read_graph_file(tmp_path / "no.tflite")


def test_a_file_says_on_a_screen_what_it_is(branches: Any, tmp_path: Path) -> None:
    found = exported(branches, tmp_path, "int8")
    text = " ".join(str(found).split())
    assert text.startswith("int8.tflite, a LiteRT file, ")
    assert "takes input 1 x 10 x 10 x 4 int8 (scale " in text
    assert "neither pruned nor fine-tuned. Give the Keras model" in text
    record = found.to_json()
    assert record["inputs"][0]["zero_point"] == found.inputs[0].zero_point
    assert math.isclose(record["inputs"][0]["scale"], found.inputs[0].scale)
