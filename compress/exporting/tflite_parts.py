"""Cuts a `.tflite` file into the files of its parts that do not touch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

_IDENTIFIER = b"TFL3"


def parts_of(content: bytes, sizes: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yields the files of a file's parts.

    Args:
        content: A `.tflite` file; its parts share no inputs and no operations.
        sizes: How many of the file's inputs and outputs belong to each part, in their order.
    """
    from ai_edge_litert import schema_py_generated as schema

    whole = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = whole.subgraphs[0]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    order = {id(operator): place for place, operator in enumerate(graph.operators)}
    inputs, outputs = iter(graph.inputs), iter(graph.outputs)
    for taken, made in sizes:
        results = [int(tensor) for tensor in islice(outputs, made)]
        operators = sorted(_behind(results, makers), key=lambda item: order[id(item)])
        yield packed(_part(whole, operators, list(islice(inputs, taken)), results))


def _behind(outputs: list[int], makers: dict[int, Any]) -> list[Any]:
    """Returns the operations that tensors are computed by."""
    found: dict[int, Any] = {}
    waiting = list(outputs)
    while waiting:
        operator = makers.get(waiting.pop())
        if operator is not None and id(operator) not in found:
            found[id(operator)] = operator
            waiting.extend(int(tensor) for tensor in operator.inputs)
    return list(found.values())


def _part(whole: Any, operators: list[Any], inputs: list[int], outputs: list[int]) -> Any:
    """Returns a model of some operations; tensors are numbered anew, buffers only emptied."""
    graph = whole.subgraphs[0]
    used = [
        *inputs,
        *outputs,
        *(tensor for op in operators for tensor in [*op.inputs, *op.outputs]),
    ]
    tensors = list(dict.fromkeys(int(tensor) for tensor in used if tensor >= 0))
    number = {old: new for new, old in enumerate(tensors)} | {-1: -1}

    def renumbered(old: Any) -> Any:
        return np.array([number[int(tensor)] for tensor in old], np.int32)

    part = copy.copy(graph)
    part.tensors = [graph.tensors[tensor] for tensor in tensors]
    part.inputs, part.outputs = renumbered(inputs), renumbered(outputs)
    part.operators = []
    for operator in operators:
        made = copy.copy(operator)
        made.inputs, made.outputs = renumbered(operator.inputs), renumbered(operator.outputs)
        part.operators.append(made)
    model = copy.copy(whole)
    # loops and branches name other subgraphs by their place
    model.subgraphs = [part, *whole.subgraphs[1:]]
    held = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    model.buffers = [
        buffer if place in held else _empty(buffer) for place, buffer in enumerate(whole.buffers)
    ]
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], []
    return model


def _empty(buffer: Any) -> Any:
    made = copy.copy(buffer)
    made.data = None
    return made


def packed(model: Any) -> bytes:
    """Returns the bytes of a file of a model in flatbuffers' objects."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())
