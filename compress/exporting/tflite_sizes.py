"""A `.tflite` file whose open sizes are known ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compress.exporting.tflite_parts import packed


def resized(content: bytes, shapes: Sequence[Sequence[int]]) -> bytes:
    """Returns a file for inputs of these shapes.

    The inputs alone are told: LiteRT works out all other shapes when it prepares the file.

    Args:
        content: A `.tflite` file.
        shapes: The batch axis included, an input each, in the order of its first graph.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for number, shape in zip(graph.inputs, shapes, strict=True):
        tensor = graph.tensors[number]
        tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None
    return packed(model)
