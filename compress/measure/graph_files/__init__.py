"""Models that are no Keras models: SavedModels and LiteRT files, looked at and counted."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import InputError
from compress.measure.graph_files.records import GraphFile, Port
from compress.model.kinds import SAVED_MODEL, SavedModel, bytes_of, check_graph_file, foreign
from compress.model.ports import InputShape

__all__ = ["GraphFile", "Port", "read_graph_file"]


def read_graph_file(
    path: str | Path, input_shape: InputShape | None = None, *, signature: str = ""
) -> GraphFile:
    """Read a SavedModel or a LiteRT file, and count its operators at batch 1.

    A `.tflite` file is read and nothing of it is run. A SavedModel is a program: TensorFlow loads
    it, which fills its tables, so look at folders only that you trust.

    Args:
        path: A SavedModel's folder, or a `.tflite` file: float32, float16 or of integers.
        input_shape: Of one example, where sizes are open; of several inputs by their names.
        signature: Of a file that has several; default: "serving_default", or the only one, or
            the first graph.

    Returns:
        Inputs, outputs, bytes and costs by operator.

    Raises:
        InputError: It is neither, or damaged; a size or a signature does not fit.

    Reference:
        docs/macs.md says what is counted in a graph of operations.
    """
    path = Path(path)
    what = foreign(path)
    if what is None and not path.is_dir():
        raise InputError(
            f"A graph must be a .tflite file or a folder that holds saved_model.pb. Received: "
            f"'{path}'."
        )
    check_graph_file(path)
    assert what is not None, "a folder without saved_model.pb is refused"
    if what.kind != SAVED_MODEL:
        from compress.measure.graph_files.tflite import read_tflite

        return read_tflite(path, what, input_shape, signature)
    from compress.measure.graph_files.tf_builder import count_saved_model

    model = SavedModel(path, signature)
    costs = count_saved_model(model, model.sizes(input_shape, "to be counted"))
    return GraphFile(
        path, what, model.signature, model.signatures,
        tuple(Port(*spec) for spec in model.inputs), tuple(Port(*spec) for spec in model.outputs),
        bytes_of(path), costs,
    )  # fmt: skip
