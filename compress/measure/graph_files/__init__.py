"""SavedModels and LiteRT files: reading them and counting their costs."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import InputError
from compress.measure.graph_files.records import GraphFile, Port
from compress.model.file_formats import (
    SAVED_MODEL,
    SavedModel,
    check_graph_file,
    count_file_bytes,
    detect_foreign_model,
)
from compress.model.ports import InputShape

__all__ = ["GraphFile", "Port", "read_graph_file"]


def read_graph_file(
    path: str | Path, input_shape: InputShape | None = None, *, signature: str = ""
) -> GraphFile:
    """Read a SavedModel or a LiteRT file and count its operators at batch 1.

    A `.tflite` file is parsed without running any of it. A SavedModel is a program: TensorFlow has
    to load it, which also fills its lookup tables, so only read folders that you trust.

    Args:
        path: Folder of a SavedModel, or a `.tflite` file (float32, float16 or integer).
        input_shape: Shape of one example, needed where the file leaves sizes open; for several
            inputs a mapping from input name to shape.
        signature: Signature to read. Default: "serving_default", or the only signature, or the
            first graph of the file.

    Returns:
        Inputs, outputs, size in bytes, and costs by operator.

    Raises:
        InputError: The path is neither format, the file is corrupt, or a size or the signature does
            not fit.

    Reference:
        docs/results/macs.md describes the operations that are counted in a graph.
    """
    path = Path(path)
    file_kind = detect_foreign_model(path)
    if file_kind is None and not path.is_dir():
        raise InputError(
            f"A graph must be a .tflite file or a folder that holds saved_model.pb. Received: "
            f"'{path}'."
        )
    check_graph_file(path)
    assert file_kind is not None, "a folder without saved_model.pb is refused"
    if file_kind.kind != SAVED_MODEL:
        from compress.measure.graph_files.tflite import read_tflite

        return read_tflite(path, file_kind, input_shape, signature)
    from compress.measure.graph_files.tf_builder import count_saved_model

    model = SavedModel(path, signature)
    costs = count_saved_model(model, model.fill_input_shapes(input_shape, "to be counted"))
    return GraphFile(
        path, file_kind, model.signature, model.signatures,
        tuple(Port(*spec) for spec in model.inputs), tuple(Port(*spec) for spec in model.outputs),
        count_file_bytes(path), costs,
    )  # fmt: skip
