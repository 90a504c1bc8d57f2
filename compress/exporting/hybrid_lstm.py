"""LSTMs of a `.tflite` file with weights of 8 bits, as LiteRT's own conversion by weights has them.

The operation for a whole sequence computes with such weights, rounds what they are multiplied with
as it comes, and keeps its state in floats. TensorFlow's converter makes it of a float model alone:
of one whose ranges stand in its graph it rounds what has ranges, and nothing else.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from compress.exporting.tflite_parts import packed

_WEIGHTS = slice(1, 9)
"""Of the operation's inputs: four kernels of the features, four of the state."""
_LARGEST = 127
_VERSION = 3
"""From this on the operation may round what passes around another zero."""


def with_whole_lstms(content: bytes) -> bytes:
    """Returns a file whose LSTMs have weights of 8 bits, each matrix with one scale.

    A weight w becomes round(w / s), in [-127, 127], where s is the largest weight of its matrix by
    127: as TensorFlow's converter has them where it is given no examples (`Optimize.DEFAULT`).

    Args:
        content: A `.tflite` file; one without LSTMs of constant weights is returned as it is.
    """
    from ai_edge_litert import schema_py_generated as schema

    told = schema.Model.GetRootAsModel(content, 0)
    codes = map(told.OperatorCodes, range(told.OperatorCodesLength()))
    if all(code.BuiltinCode() != _lstm() for code in codes):
        return content  # unpacked, a large file takes its time
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found = [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == _lstm()
        and _has_constant_weights(model, graph, operator)
    ]
    if not found:
        return content
    numbers: dict[int, int] = {}  # of codes: float LSTMs elsewhere keep theirs
    for graph, operator in found:
        operator.opcodeIndex = _code(model, operator.opcodeIndex, numbers)
        operator.builtinOptions.asymmetricQuantizeInputs = True
        for place in operator.inputs[_WEIGHTS]:
            tensor = graph.tensors[place]
            if tensor.type == schema.TensorType.FLOAT32:  # not rounded by another call yet
                _round(model, tensor)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {item.buffer for item in model.metadata or ()}
    for place, buffer in enumerate(model.buffers):
        if place not in used:
            buffer.data = None
    return packed(model)


def _lstm() -> int:
    from ai_edge_litert import schema_py_generated as schema

    return int(schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM)


def _has_constant_weights(model: Any, graph: Any, operator: Any) -> bool:
    places = operator.inputs[_WEIGHTS]
    return all(
        place >= 0 and model.buffers[graph.tensors[place].buffer].data is not None
        for place in places
    )


def _code(model: Any, place: int, numbers: dict[int, int]) -> int:
    """Returns the place of the same operation's code in the version that rounds."""
    if place not in numbers:
        code = copy.copy(model.operatorCodes[place])
        code.version = max(code.version, _VERSION)
        model.operatorCodes.append(code)
        numbers[place] = len(model.operatorCodes) - 1
    return numbers[place]


def _round(model: Any, tensor: Any) -> None:
    """Rounds the weights of a tensor; others may share its buffer, so it gets one of its own."""
    from ai_edge_litert import schema_py_generated as schema

    weights = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    scale = np.float32(np.abs(weights).max(initial=0.0) / _LARGEST) or np.float32(1.0)
    buffer = schema.BufferT()
    buffer.data = np.round(weights / scale).astype(np.int8).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
