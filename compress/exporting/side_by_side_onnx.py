"""Many small models in one conversion to ONNX: side by side in one graph, then cut into files.

See `compress.exporting.side_by_side`; tf2onnx takes seconds for each conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.requirements import FORMATS, require_packages
from compress.exporting.conversions import convert
from compress.exporting.onnx import quantize_onnx
from compress.exporting.recurrent import LOOPS, recurrent_as
from compress.exporting.side_by_side import each_converted, random_examples, traced_graph
from compress.model.copies import float32_model
from compress.model.internals import prepare_tf2onnx

if TYPE_CHECKING:
    import keras

LOWERED = "_lower_using_switch_merge"
"""Attribute of TensorFlow's loops: they become the operations that its version 1 had for them."""


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
    return each_converted(models, folder, kind, ".onnx", _joined)


def _joined(models: list[Any], folder: Path, kind: str) -> list[bytes]:
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
        return _parts(path, models, names, outputs)
    finally:
        for file in (graph, folder / "joined.onnx", whole):
            file.unlink(missing_ok=True)


def _parts(path: Path, models: list[Any], inputs: list[str], outputs: list[str]) -> list[bytes]:
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
