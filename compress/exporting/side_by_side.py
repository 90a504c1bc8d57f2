"""Many small models in one conversion: side by side in one graph, then cut into files.

A conversion to LiteRT takes a third of a second however small the model is, one to ONNX seconds;
one of a hundred small models takes hardly longer. That makes tables of layer times
(`compress.measure.latency_table`) cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError, RunFailed, one_line
from compress.core.interpreter import FORMATS, require_packages
from compress.core.native_output import captured_stderr, quiet_logger
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.litert import calibrated_file, configured
from compress.exporting.onnx import quantize_onnx
from compress.exporting.recurrent import FUSED, LOOPS, fused_lstms, recurrent_as
from compress.exporting.tflite_editing import parts_of, with_byte_inputs
from compress.exporting.traced import Port
from compress.model.copies import float32_model
from compress.model.inference import inference_alone
from compress.model.internals import prepare_tf2onnx

if TYPE_CHECKING:
    import keras

Joined = Callable[[list[Any], Path, str], list[bytes]]
EXAMPLES = 4
"""Random inputs that calibrate int8: the time of a file does not depend on its ranges."""
LOWERED = "_lower_using_switch_merge"
"""Attribute of TensorFlow's loops: they become the operations that its version 1 had for them."""


def litert_files(
    models: Sequence[keras.Model], folder: Path, kind: str = "float32"
) -> list[Path | str]:
    """Writes one `.tflite` file of each model, for timing: int8 is calibrated on random inputs.

    Models that the converter refuses are found by halving, so that they cost themselves alone.

    Args:
        models: Functional, with inputs of known sizes; an open batch axis becomes 1.
        folder: Where the files go, as 0.tflite, 1.tflite, ...
        kind: "float32", "float16", "dynamic" or "int8"; see `export_litert`.

    Returns:
        For each model its file, or why there is none.
    """
    return each_converted(models, folder, kind, ".tflite", _joined)


def onnx_files(models: Sequence[keras.Model], folder: Path, kind: str = "onnx") -> list[Path | str]:
    """Writes one `.onnx` file of each model, for timing: int8 is calibrated on random inputs.

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
    return each_converted(models, folder, kind, ".onnx", _joined_onnx)


def each_converted(
    models: Sequence[keras.Model], folder: Path, kind: str, suffix: str, joined: Joined
) -> list[Path | str]:
    """Writes a file of each model; those that the converter refuses are found by halving.

    Args:
        models: See `litert_files`.
        folder: Where the files go.
        kind: See `joined`.
        suffix: Of the files.
        joined: Converts all models at once: (models, folder, kind) -> the bytes of each file.

    Returns:
        For each model its file, or why there is none.
    """
    found: list[Path | str] = []
    for place, part in enumerate(_converted(list(models), folder, kind, joined)):
        if isinstance(part, bytes):
            path = folder / f"{place}{suffix}"
            write_bytes(path, part)
            found.append(path)
        else:
            found.append(part)
    return found


def traced_graph(models: Sequence[keras.Model], file: Path) -> tuple[list[Port], list[str]]:
    """Writes a graph of all models, weights as constants.

    Args:
        models: See `litert_files`.
        file: For the serialized GraphDef.

    Returns:
        Name, shape and type of each of its inputs, and names of its outputs, model by model.

    Raises:
        RunFailed: A model cannot be traced.
    """
    import keras
    import tensorflow as tf

    models = [float32_model(model) for model in models]
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

    with ExitStack() as stack:
        for model in models:
            stack.enter_context(inference_alone(model))
        written = stack.enter_context(captured_stderr())
        stack.enter_context(quiet_logger("tensorflow"))
        try:
            traced = tf.function(serve, autograph=False).get_concrete_function(*specs)
        except Exception as error:  # a model's own code raises what it likes
            lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
            raise RunFailed(f"could not be traced for export: {lines[0]}") from error
    file.write_bytes(traced.graph.as_graph_def().SerializeToString())
    return [(spec.name, tuple(spec.shape), spec.dtype.name) for spec in specs], outputs


def convert_litert_graph(
    graph: str, path: str, inputs: list[Port], outputs: list[str], kind: str
) -> None:
    """Converts a graph without variables, in the converter's process.

    Args:
        graph: The file of a serialized GraphDef.
        path: The file to write.
        inputs: Name, shape and type of each of its inputs.
        outputs: Names.
        kind: See `litert_files`.
    """
    import tensorflow as tf

    converter: Any = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        graph, [name for name, _, _ in inputs], list(outputs)
    )
    columns = random_examples(inputs)
    examples = [[column[at : at + 1] for column in columns] for at in range(EXAMPLES)]
    Path(path).write_bytes(with_byte_inputs(configured(converter, kind, examples).convert()))


def convert_onnx_graph(graph: str, path: str, inputs: list[str], outputs: list[str]) -> None:
    """Converts a graph without variables, in the converter's process.

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
    drawn = []
    for _, shape, kind in inputs:
        size = (count, *shape[1:])
        values = rng.normal(size=size) if "float" in kind else rng.integers(2, size=size)
        drawn.append(values.astype(kind))
    return drawn


def _converted(models: list[Any], folder: Path, kind: str, joined: Joined) -> list[bytes | str]:
    if not models:
        return []
    try:
        return list(joined(models, folder, kind))
    except (ConversionFailed, RunFailed) as error:
        if len(models) == 1:
            if kind == "int8" and (own := _calibrated(models[0], folder)) is not None:
                return [own]
            reason = error.reason if isinstance(error, ConversionFailed) else str(error)
            return [one_line(reason.strip().splitlines()[0] if reason.strip() else "no reason")]
    half = len(models) // 2
    return [
        *_converted(models[:half], folder, kind, joined),
        *_converted(models[half:], folder, kind, joined),
    ]


def _calibrated(model: Any, folder: Path) -> bytes | None:
    """Return the int8 file of a model that the converter does not calibrate; None: there is none.

    See `compress.exporting.litert.write_int8`.
    """
    ports = [(item.name, (1, *item.shape[1:]), str(item.dtype)) for item in model.inputs]
    path = folder / "calibrated.tflite"
    try:
        calibrated_file(model, path, random_examples(ports))
        return path.read_bytes()
    except (InputError, RunFailed):
        return None
    finally:
        path.unlink(missing_ok=True)


def _joined(models: list[Any], folder: Path, kind: str) -> list[bytes]:
    """Converts all models as one graph of as many inputs and outputs as they have together."""
    graph, path = folder / "joined.pb", folder / "joined.tflite"
    models = [float32_model(model) for model in models]
    with ExitStack() as stack:
        if kind in FUSED:
            for model in models:
                stack.enter_context(fused_lstms(model))
        inputs, outputs = traced_graph(models, graph)
    try:
        convert(
            "litert_graph", graph=str(graph), path=str(path), inputs=inputs, outputs=outputs,
            kind=kind,
        )  # fmt: skip
        sizes = [(len(model.inputs), len(model.outputs)) for model in models]
        return list(parts_of(path.read_bytes(), sizes))
    finally:
        graph.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _joined_onnx(models: list[Any], folder: Path, kind: str) -> list[bytes]:
    """Converts all models as one graph, and returns the parts of it."""
    graph, path, whole = folder / "joined.pb", folder / "joined.onnx", folder / "joined-int8.onnx"
    models = [float32_model(model) for model in models]
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(recurrent_as(model, LOOPS))
        inputs, outputs = traced_graph(models, graph)
        names = [name for name, _, _ in inputs]
    try:
        convert("onnx_graph", graph=str(graph), path=str(path), inputs=names, outputs=outputs)
        if kind == "onnx_int8":
            quantize_onnx(path, whole, random_examples(inputs))
            path = whole
        return _onnx_parts(path, models, names, outputs)
    finally:
        for file in (graph, folder / "joined.onnx", whole):
            file.unlink(missing_ok=True)


def _onnx_parts(
    path: Path, models: list[Any], inputs: list[str], outputs: list[str]
) -> list[bytes]:
    """Cuts a file into one of each model."""
    import onnx
    from onnx.utils import Extractor

    extractor = Extractor(onnx.load(path))
    names, outs, made = iter(inputs), iter(outputs), []
    for model in models:
        given = [f"{next(names)}:0" for _ in model.inputs]
        told = [f"{next(outs)}:0" for _ in model.outputs]
        made.append(extractor.extract_model(given, told).SerializeToString())
    return made
