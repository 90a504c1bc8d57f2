"""Conversion of many small models at once, as one graph that is then split into files.

Converting one model takes a third of a second for LiteRT and seconds for ONNX, however small the
model is. Converting a hundred small models as one graph takes hardly longer. This makes tables of
layer times (`compress.measure.latency_table`) cheap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError, RunFailed, to_one_line
from compress.core.lazy_modules import keras, tf
from compress.core.memory_budget import get_current_budget
from compress.core.module_loading import FORMAT_PACKAGES, require_packages
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.litert import configure_converter, write_calibrated
from compress.exporting.onnx import quantize_onnx
from compress.exporting.recurrent import FUSED, FUSED_LSTMS, LOOPS, replace_recurrent
from compress.exporting.tracing import Port, trace_quietly
from compress.model.copies import convert_to_float32
from compress.model.keras_internals import prepare_tf2onnx
from compress.model.normalization_statistics import use_batch_statistics
from compress.model.recording import record_program
from compress.plan import ONNX_FORMATS

RECURRENT = {**dict.fromkeys(FUSED, FUSED_LSTMS), **dict.fromkeys(ONNX_FORMATS, LOOPS)}
"""Computation of recurrent layers by format; formats that are not listed do not change it."""
EXAMPLES = 4
"""Random examples that calibrate int8: the latency of a file does not depend on its ranges."""
CALIBRATED, NORMALIZED = ("int8", "onnx_int8"), 16
"""Formats that random examples calibrate, and the examples that batch normalization is set by."""
JOINED_BYTES = 2**28
"""Maximum bytes of the weights that are converted at once; a conversion copies them many times."""
JOINED_SHARE = 1 / 16
"""Share of the free memory for these weights."""
LOWERED = "_lower_using_switch_merge"
"""Attribute of TensorFlow loops: lower them to the control flow operations of TensorFlow 1."""


def write_latency_files(
    models: Sequence[keras.Model], folder: Path, kind: str = "float32"
) -> list[Path | str]:
    """Write a `.tflite` or `.onnx` file of each model, for latency measurements.

    int8 is calibrated on random inputs, whose statistics batch normalizations take meanwhile. If
    the converter refuses the graph, the models are halved until the refused ones are found; all
    others are converted.

    Args:
        models: Functional models with inputs of known sizes; an open batch axis becomes 1.
        folder: Folder of the files, 0.tflite, 1.tflite, ...
        kind: "float32", "float16", "dynamic" or "int8" of LiteRT (see `export_litert`), "onnx" or
            "onnx_int8".

    Returns:
        For each model the path of its file, or the reason why there is none.

    Raises:
        MissingDependency: A package that the format needs is not installed.
    """
    require_packages(FORMAT_PACKAGES.get(kind, ()), f"format {kind}")
    suffix = ".onnx" if kind in ONNX_FORMATS else ".tflite"
    files: list[Path | str] = []
    batches = _split_by_weights(models)
    contents = chain.from_iterable(_convert_all(batch, folder, kind) for batch in batches)
    for index, content in enumerate(contents):
        if isinstance(content, str):
            files.append(content)
        else:
            files.append(folder / f"{index}{suffix}")
            write_bytes(folder / f"{index}{suffix}", content)
    return files


def convert_litert_graph(
    graph: str, path: str, inputs: list[Port], outputs: list[str], kind: str
) -> None:
    """Convert a graph without variables to LiteRT, in the converter's process.

    Args:
        graph: File of a serialized GraphDef.
        path: The file to write.
        inputs: Name, shape and type of each input of the graph.
        outputs: Names of the outputs.
        kind: See `write_latency_files`.
    """
    from compress.exporting.tflite_editing import quantize_byte_inputs

    converter: Any = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        graph, [name for name, _, _ in inputs], list(outputs)
    )
    columns = draw_random_examples(inputs)
    examples = [[column[at : at + 1] for column in columns] for at in range(EXAMPLES)]
    Path(path).write_bytes(
        quantize_byte_inputs(configure_converter(converter, kind, examples).convert())
    )


def convert_onnx_graph(graph: str, path: str, inputs: list[str], outputs: list[str]) -> None:
    """Convert a graph without variables to ONNX, in the converter's process.

    Args:
        graph: File of a serialized GraphDef.
        path: The file to write.
        inputs: Names of the inputs of the graph.
        outputs: Names of the outputs.
    """
    import tf2onnx

    prepare_tf2onnx()
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(Path(graph).read_bytes())
    # tf2onnx does not recognize lowered loops
    for node in chain(definition.node, *(item.node_def for item in definition.library.function)):
        if LOWERED in node.attr:
            node.attr[LOWERED].b = False
    tf2onnx.convert.from_graph_def(
        definition,
        input_names=[f"{name}:0" for name in inputs],
        output_names=[f"{name}:0" for name in outputs],
        output_path=path,
    )


def draw_random_examples(
    inputs: Sequence[Port], count: int = EXAMPLES, seed: int = 0
) -> list[npt.NDArray[Any]]:
    """Return random examples (count, ...) for inputs: integers 0 and 1, or normal floats.

    Args:
        inputs: Name, shape (batch axis included) and type of each input.
        count: Number of examples.
        seed: Seed of the random generator.
    """
    rng = np.random.default_rng(seed)
    sizes = [(count, *shape[1:]) for _, shape, _ in inputs]
    return [
        (rng.normal(size=size) if "float" in kind else rng.integers(2, size=size)).astype(kind)
        for size, (_, _, kind) in zip(sizes, inputs, strict=True)
    ]


def _split_by_weights(models: Sequence[keras.Model]) -> list[list[keras.Model]]:
    """Return the models in batches whose weights may be converted at once."""
    limit = get_current_budget().compute_share(JOINED_SHARE, JOINED_BYTES)
    batches, occupied = list[list[keras.Model]](), 0
    for model in models:
        weight_bytes = 4 * model.count_params()
        if not batches or occupied + weight_bytes > limit:
            batches.append([])
            occupied = 0
        batches[-1].append(model)
        occupied += weight_bytes
    return batches


def _convert_all(models: list[Any], folder: Path, kind: str) -> list[bytes | str]:
    """Convert all models at once; on a refusal halve them to find the models it is due to."""
    if not models:
        return []
    try:
        return list(_convert_joined(models, folder, kind))
    except (ConversionFailed, RunFailed) as error:
        if len(models) == 1:
            if kind == "int8" and (calibrated := _calibrate_int8(models[0], folder)) is not None:
                return [calibrated]
            reason = error.reason if isinstance(error, ConversionFailed) else str(error)
            return [to_one_line(reason.strip().splitlines()[0] if reason.strip() else "no reason")]
    half = len(models) // 2
    return [*_convert_all(models[:half], folder, kind), *_convert_all(models[half:], folder, kind)]


def _calibrate_int8(model: Any, folder: Path) -> bytes | None:
    """Return a model's int8 file with paretune's own calibration, or None if that fails too.

    See `compress.exporting.litert.write_int8`.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "calibrated.tflite"
        try:
            write_calibrated(model, path, draw_random_examples(_list_ports(model)))
        except (InputError, RunFailed):
            return None
        return path.read_bytes()


def _list_ports(model: Any) -> list[Port]:
    """Return the name, shape and type of each input, for one example."""
    return [(item.name, (1, *item.shape[1:]), str(item.dtype)) for item in model.inputs]


def _convert_joined(models: list[Any], folder: Path, kind: str) -> list[bytes]:
    """Convert all models as one graph with all their inputs and outputs."""
    from compress.exporting.tflite_editing import split_joined_graphs

    models = [convert_to_float32(model) for model in models]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        graph, path = Path(temporary) / "joined.pb", Path(temporary) / "joined"
        with ExitStack() as stack:
            for model in models:
                if kind in CALIBRATED:
                    # a slice of a trained model may answer random inputs with zeros alone, and
                    # XNNPACK refuses int8 files with such ranges
                    examples = draw_random_examples(_list_ports(model), NORMALIZED)
                    stack.enter_context(use_batch_statistics(record_program(model), examples))
                stack.enter_context(replace_recurrent(model, RECURRENT.get(kind, {})))
            inputs, outputs = _write_graph(models, graph)
        paths = {"graph": str(graph), "path": str(path)}
        if kind not in ONNX_FORMATS:
            convert("litert_graph", **paths, inputs=inputs, outputs=outputs, kind=kind)
            sizes = [(len(model.inputs), len(model.outputs)) for model in models]
            return list(split_joined_graphs(path.read_bytes(), sizes))
        names = [name for name, _, _ in inputs]
        convert("onnx_graph", **paths, inputs=names, outputs=outputs)
        if kind == "onnx_int8":
            source, path = path, Path(temporary) / "joined-int8"
            quantize_onnx(source, path, draw_random_examples(inputs))
        return _split_onnx(path, models, names, outputs)


def _write_graph(models: Sequence[keras.Model], file: Path) -> tuple[list[Port], list[str]]:
    """Write one graph of all models, with weights as constants.

    Args:
        models: Models in float32; see `write_latency_files`.
        file: Path of the serialized GraphDef.

    Returns:
        Name, shape and type of each input, and names of the outputs, model by model.

    Raises:
        RunFailed: A model cannot be traced.
    """
    tensors = [tensor for model in models for tensor in model.inputs]
    specs = [
        tf.TensorSpec((tensor.shape[0] or 1, *tensor.shape[1:]), tensor.dtype, name=f"x{index}")
        for index, tensor in enumerate(tensors)
    ]
    outputs: list[str] = []
    values = [
        [
            [variable.numpy() for variable in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        for model in models
    ]

    def serve(*tensors: Any) -> None:
        remaining = list(tensors)
        for model, weights in zip(models, values, strict=True):
            inputs = [remaining.pop(0) for _ in model.inputs]
            trained, untrained = ([tf.constant(value) for value in part] for part in weights)
            result, _ = model.stateless_call(
                trained, untrained, inputs if len(inputs) > 1 else inputs[0], training=False
            )
            for tensor in keras.tree.flatten(result):
                outputs.append(f"y{len(outputs)}")
                tf.identity(tensor, name=outputs[-1])

    with trace_quietly("The model", models):
        traced = tf.function(serve, autograph=False).get_concrete_function(*specs)
    file.write_bytes(traced.graph.as_graph_def().SerializeToString())
    return [(spec.name, tuple(spec.shape), spec.dtype.name) for spec in specs], outputs


def _split_onnx(
    path: Path, models: list[Any], inputs: list[str], outputs: list[str]
) -> list[bytes]:
    """Split a joined file into the contents of one file per model."""
    import onnx
    from onnx.utils import Extractor

    extractor = Extractor(onnx.load(path))
    names = iter([f"{name}:0" for name in inputs])
    results = iter([f"{name}:0" for name in outputs])
    return [
        extractor.extract_model(
            list(islice(names, len(model.inputs))), list(islice(results, len(model.outputs)))
        ).SerializeToString()
        for model in models
    ]
