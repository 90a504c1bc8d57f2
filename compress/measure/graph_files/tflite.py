"""A LiteRT file: what it takes and gives, and what its operators cost."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import unknown_name
from compress.measure.graph_files._base import GraphFile
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.tflite_reader import TFLiteReader
from compress.measure.graph_files.tflite_table import TFLITE
from compress.model.input_sizes import InputShape, sizes_of
from compress.model.kinds import Foreign


def read_tflite(
    path: Path, what: Foreign, input_shape: InputShape | None, signature: str
) -> GraphFile:
    """Reads and counts a `.tflite` file; see `compress.measure.graph_files.read_graph_file`."""
    reader = TFLiteReader(path)
    names = tuple(reader.signatures)
    if signature and signature not in names:
        raise unknown_name(f"signature of '{path}'", signature, names)
    chosen = signature or next((name for name in names if not reader.signatures[name]), "")
    with reader.doubted():
        inputs, outputs = reader.ports(chosen)
        own = [(port.name, port.sizes) for port in inputs]
        graph = reader.graph(chosen, sizes_of(f"'{path}'", own, input_shape))
        costs = count_graph(graph, TFLITE)
    return GraphFile(
        path,
        what,
        chosen,
        names,
        tuple(inputs),
        tuple(outputs),
        path.stat().st_size,
        costs,
    )
