"""Conversion of many small models at once: side by side in one graph, then cut into files.

A conversion to LiteRT takes a third of a second however small the model is, one to ONNX seconds;
one of a hundred small models takes hardly longer. That makes tables of layer times
(`compress.measure.latency_table`) cheap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError, RunFailed, one_line
from compress.core.interpreter import FORMATS, require_packages
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.litert import calibrated_file, configured
from compress.exporting.onnx import quantize_onnx
from compress.exporting.recurrent import FUSED, FUSED_LSTMS, LOOPS, recurrent_as
from compress.exporting.traced import Port, trace_quietly
from compress.model.copies import float32_model
from compress.model.internals import prepare_tf2onnx
from compress.plan import ONNX_FORMATS

if TYPE_CHECKING:
    import keras

RECURRENT = {**dict.fromkeys(FUSED, FUSED_LSTMS), **dict.fromkeys(ONNX_FORMATS, LOOPS)}
"""Computation of recurrent layers in each format; in the others it stays as it is."""
EXAMPLES = 4
"""Random inputs that calibrate int8: the time of a file does not depend on its ranges."""
LOWERED = "_lower_using_switch_merge"
"""Attribute of TensorFlow's loops: they become the operations that its version 1 had for them."""


def litert_files(
    models: Sequence[keras.Model], folder: Path, kind: str = "float32"
) -> list[Path | str]:
    """Write a `.tflite` file of each model, for timing: int8 is calibrated on random inputs.

    Models that the converter refuses are found by halving, so that they cost themselves alone.

    Args:
        models: Functional, with inputs of known sizes; an open batch axis becomes 1.
        folder: Where the files go, as 0.tflite, 1.tflite, ...
        kind: "float32", "float16", "dynamic" or "int8"; see `export_litert`.

    Returns:
        For each model its file, or why there is none.
    """
    return _write_each(models, folder, kind, ".tflite")


def onnx_files(models: Sequence[keras.Model], folder: Path, kind: str = "onnx") -> list[Path | str]:
    """Write an `.onnx` file of each model, for timing: int8 is calibrated on random inputs.

    Models that the converter refuses are found by halving, so that they cost themselves alone.

    Args:
        models: Functional, with inputs of known sizes; an open batch axis becomes 1.
        folder: Where the files go, as 0.onnx, 1.onnx, ...
        kind: "onnx" or "onnx_int8".

    Returns:
        For each model its file, or why there is none.

    Raises:
        MissingDependency: A package is not installed.
    """
    require_packages(FORMATS[kind], f"format {kind}")
    return _write_each(models, folder, kind, ".onnx")


def convert_litert_graph(
    graph: str, path: str, inputs: list[Port], outputs: list[str], kind: str
) -> None:
    """Convert a graph without variables, in the converter's process.

    Args:
        graph: The file of a serialized GraphDef.
        path: The file to write.
        inputs: Name, shape and type of each of its inputs.
        outputs: Names.
        kind: See `litert_files`.
    """
    import tensorflow as tf

    from compress.exporting.tflite_editing import with_byte_inputs

    converter: Any = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        graph, [name for name, _, _ in inputs], list(outputs)
    )
    columns = random_examples(inputs)
    examples = [[column[at : at + 1] for column in columns] for at in range(EXAMPLES)]
    Path(path).write_bytes(with_byte_inputs(configured(converter, kind, examples).convert()))


def convert_onnx_graph(graph: str, path: str, inputs: list[str], outputs: list[str]) -> None:
    """Convert a graph without variables, in the converter's process.

    Args:
        graph: The file of a serialized GraphDef.
        path: The file to write.
        inputs: Names of its inputs.
        outputs: Names.
    """
    import tensorflow as tf
    import tf2onnx

    prepare_tf2onnx()
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(Path(graph).read_bytes())
    # as loops of old they would not be recognized
    for node in chain(definition.node, *(item.node_def for item in definition.library.function)):
        if LOWERED in node.attr:
            node.attr[LOWERED].b = False
    tf2onnx.convert.from_graph_def(
        definition,
        input_names=[f"{name}:0" for name in inputs],
        output_names=[f"{name}:0" for name in outputs],
        output_path=path,
    )


def random_examples(
    inputs: Sequence[Port], count: int = EXAMPLES, seed: int = 0
) -> list[npt.NDArray[Any]]:
    """Return random examples (count, ...) for inputs: integers of 0 and 1, or normal floats."""
    rng = np.random.default_rng(seed)
    sizes = [(count, *shape[1:]) for _, shape, _ in inputs]
    return [
        (rng.normal(size=size) if "float" in kind else rng.integers(2, size=size)).astype(kind)
        for size, (_, _, kind) in zip(sizes, inputs, strict=True)
    ]


def _write_each(
    models: Sequence[keras.Model], folder: Path, kind: str, suffix: str
) -> list[Path | str]:
    """Write a file of each model; see `litert_files`."""
    files: list[Path | str] = []
    for place, content in enumerate(_converted(list(models), folder, kind)):
        if isinstance(content, str):
            files.append(content)
        else:
            files.append(folder / f"{place}{suffix}")
            write_bytes(folder / f"{place}{suffix}", content)
    return files


def _converted(models: list[Any], folder: Path, kind: str) -> list[bytes | str]:
    """Convert all models at once; halve them to find those that the converter refuses."""
    if not models:
        return []
    try:
        return list(_joined(models, folder, kind))
    except (ConversionFailed, RunFailed) as error:
        if len(models) == 1:
            if kind == "int8" and (own := _calibrated(models[0], folder)) is not None:
                return [own]
            reason = error.reason if isinstance(error, ConversionFailed) else str(error)
            return [one_line(reason.strip().splitlines()[0] if reason.strip() else "no reason")]
    half = len(models) // 2
    return [*_converted(models[:half], folder, kind), *_converted(models[half:], folder, kind)]


def _calibrated(model: Any, folder: Path) -> bytes | None:
    """Return the int8 file of a model that the converter does not calibrate, or None.

    See `compress.exporting.litert.write_int8`.
    """
    ports = [(item.name, (1, *item.shape[1:]), str(item.dtype)) for item in model.inputs]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "calibrated.tflite"
        try:
            calibrated_file(model, path, random_examples(ports))
        except (InputError, RunFailed):
            return None
        return path.read_bytes()


def _joined(models: list[Any], folder: Path, kind: str) -> list[bytes]:
    """Convert all models as one graph, of as many inputs and outputs as they have together."""
    from compress.exporting.tflite_editing import parts_of

    models = [float32_model(model) for model in models]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        graph, path = Path(place) / "joined.pb", Path(place) / "joined"
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(recurrent_as(model, RECURRENT.get(kind, {})))
            inputs, outputs = _write_graph(models, graph)
        paths = {"graph": str(graph), "path": str(path)}
        if kind not in ONNX_FORMATS:
            convert("litert_graph", **paths, inputs=inputs, outputs=outputs, kind=kind)
            sizes = [(len(model.inputs), len(model.outputs)) for model in models]
            return list(parts_of(path.read_bytes(), sizes))
        names = [name for name, _, _ in inputs]
        convert("onnx_graph", **paths, inputs=names, outputs=outputs)
        if kind == "onnx_int8":
            source, path = path, Path(place) / "joined-int8"
            quantize_onnx(source, path, random_examples(inputs))
        return _onnx_parts(path, models, names, outputs)


def _write_graph(models: Sequence[keras.Model], file: Path) -> tuple[list[Port], list[str]]:
    """Write a graph of all models, weights as constants.

    Args:
        models: In float32, see `litert_files`.
        file: For the serialized GraphDef.

    Returns:
        Name, shape and type of each of its inputs, and names of its outputs, model by model.

    Raises:
        RunFailed: A model cannot be traced.
    """
    import keras
    import tensorflow as tf

    tensors = [tensor for model in models for tensor in model.inputs]
    specs = [
        tf.TensorSpec((tensor.shape[0] or 1, *tensor.shape[1:]), tensor.dtype, name=f"x{place}")
        for place, tensor in enumerate(tensors)
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
        left = list(tensors)
        for model, weights in zip(models, values, strict=True):
            given = [left.pop(0) for _ in model.inputs]
            trained, others = ([tf.constant(value) for value in part] for part in weights)
            result, _ = model.stateless_call(
                trained, others, given if len(given) > 1 else given[0], training=False
            )
            for tensor in keras.tree.flatten(result):
                outputs.append(f"y{len(outputs)}")
                tf.identity(tensor, name=outputs[-1])

    with trace_quietly("The model", models):
        traced = tf.function(serve, autograph=False).get_concrete_function(*specs)
    file.write_bytes(traced.graph.as_graph_def().SerializeToString())
    return [(spec.name, tuple(spec.shape), spec.dtype.name) for spec in specs], outputs


def _onnx_parts(
    path: Path, models: list[Any], inputs: list[str], outputs: list[str]
) -> list[bytes]:
    """Cut a file into one for each model."""
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
