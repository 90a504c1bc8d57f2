"""A SavedModel: what a signature takes and gives, and what its operations cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compress.core.errors import InputError, one_line
from compress.core.native_output import captured_stderr, quiet_logger
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.records import Graph, GraphFile, Port
from compress.measure.graph_files.tf_builder import graph_of
from compress.measure.graph_files.tf_table import TENSORFLOW
from compress.measure.layer_costs import Analysis
from compress.model.kinds import Foreign, SavedModel, bytes_of
from compress.model.ports import InputShape


def read_saved_model(
    path: Path, what: Foreign, input_shape: InputShape | None, signature: str
) -> GraphFile:
    """Loads and counts a SavedModel; see `compress.measure.graph_files.read_graph_file`."""
    model = SavedModel(path, signature)
    costs = count_saved_model(model, model.sizes(input_shape, "to be counted"))
    return GraphFile(
        path, what, model.signature, model.signatures,
        tuple(Port(*spec) for spec in model.inputs), tuple(Port(*spec) for spec in model.outputs),
        bytes_of(path), costs,
    )  # fmt: skip


def count_saved_model(model: SavedModel, sizes: Sequence[tuple[int, ...]]) -> Analysis:
    """Counts a loaded SavedModel.

    Args:
        model: With the signature that is counted.
        sizes: Of one example, an input each; see `SavedModel.sizes`.

    Raises:
        InputError: It cannot run at these sizes, or its graph cannot be read.
    """
    return count_graph(_graph(model, sizes), TENSORFLOW)


def _graph(model: SavedModel, sizes: Sequence[tuple[int, ...]]) -> Graph:
    """Returns a signature's graph at known sizes, with constants in place of variables.

    Raises:
        InputError: TensorFlow cannot write it as one graph (of more than 2 GiB, say), or does not
            know its sizes.
    """
    from tensorflow.python.framework import convert_to_constants

    function = model.at(sizes)
    with captured_stderr(), quiet_logger("tensorflow"):
        try:
            frozen = convert_to_constants.convert_variables_to_constants_v2(
                function, lower_control_flow=False
            )
            return graph_of(frozen.graph.as_graph_def())
        except InputError:
            raise
        except Exception as error:  # of protobuf and of TensorFlow, of many kinds
            raise InputError(
                f"The graph of '{model.path}' must be readable with its variables as constants. "
                f"Received: {one_line(str(error).strip().splitlines()[0], 300)}."
            ) from None
