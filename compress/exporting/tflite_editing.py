"""Changes of `.tflite` files: cut into parts, sizes made known, inputs of bytes, LSTMs of 8 bits.

TensorFlow's converter and LiteRT Quantizer make floats of the pixels of a model that takes uint8,
and round these to int8 again. One operation of integers does the same.

The operation for a whole LSTM computes with weights of 8 bits, rounds what they are multiplied with
as it comes, and keeps its state in floats. TensorFlow's converter makes it of a float model alone:
of one whose ranges stand in its graph it rounds what has ranges, and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_IDENTIFIER = b"TFL3"
_WEIGHTS = slice(1, 9)
"""Of the operation's inputs: four kernels of the features, four of the state."""
_LARGEST = 127
_VERSION = 3
"""From this on the operation may round what passes around another zero."""
_LSTM = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM


def parts_of(content: bytes, sizes: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield each part of a file as a file of its own.

    Args:
        content: A `.tflite` file; its parts share no inputs and no operations.
        sizes: How many of the file's inputs and outputs belong to each part, in their order.
    """
    whole = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = whole.subgraphs[0]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    inputs, outputs = iter(graph.inputs), iter(graph.outputs)
    for taken, made in sizes:
        results = [int(tensor) for tensor in islice(outputs, made)]
        behind = _behind(results, makers)
        operators = [operator for operator in graph.operators if id(operator) in behind]
        yield packed(_part(whole, operators, list(islice(inputs, taken)), results))


def resized(content: bytes, shapes: Sequence[Sequence[int]]) -> bytes:
    """Return a file for inputs of these shapes.

    The inputs alone are told: LiteRT works out all other shapes when it prepares the file.

    Args:
        content: A `.tflite` file.
        shapes: The batch axis included, an input each, in the order of its first graph.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for number, shape in zip(graph.inputs, shapes, strict=True):
        tensor = graph.tensors[number]
        tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None
    return packed(model)


def with_byte_inputs(content: bytes) -> bytes:
    """Return a file whose inputs of uint8 or int8 are read as quantized numbers.

    Where an input is cast to floats that are quantized to 8 bits, the cast is left out: the input
    itself is quantized, with scale 1 and zero point 0, so that pixels are fed as before.

    Args:
        content: A `.tflite` file; one without such inputs is returned as it is.
    """
    codes, kinds = schema.BuiltinOperator, (schema.TensorType.UINT8, schema.TensorType.INT8)
    told = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    inputs = [told.Tensors(told.Inputs(place)) for place in range(told.InputsLength())]
    if all(tensor.Type() not in kinds for tensor in inputs):
        return content  # unpacked, a large file takes its time
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]

    def readers(tensor: int, code: int) -> list[Any]:
        """Return the operations that read a tensor; none if one is of another kind."""
        found = [operator for operator in graph.operators if tensor in operator.inputs]
        same = all(model.operatorCodes[item.opcodeIndex].builtinCode == code for item in found)
        return found if same and tensor not in graph.outputs else []

    changed = False
    for place in map(int, graph.inputs):
        casts = readers(place, codes.CAST) if graph.tensors[place].type in kinds else []
        quantized = [readers(int(cast.outputs[0]), codes.QUANTIZE) for cast in casts]
        operators = [item for part in quantized for item in part]
        results = [graph.tensors[item.outputs[0]] for item in operators]
        if not casts or not all(quantized) or any(item.type not in kinds for item in results):
            continue
        for operator in operators:
            operator.inputs = np.array([place], np.int32)
        graph.operators = [item for item in graph.operators if item not in casts]
        known = schema.QuantizationParametersT()
        known.scale, known.zeroPoint = np.array([1.0], np.float32), np.array([0], np.int64)
        graph.tensors[place].quantization = known
        changed = True
    return packed(model) if changed else content


def with_whole_lstms(content: bytes) -> bytes:
    """Return a file whose LSTMs have weights of 8 bits, each matrix with one scale.

    A weight w becomes round(w / s), in [-127, 127], where s is the largest weight of its matrix by
    127: as TensorFlow's converter has them where it is given no examples (`Optimize.DEFAULT`).

    Args:
        content: A `.tflite` file; one without LSTMs of constant weights is returned as it is.
    """
    told = schema.Model.GetRootAsModel(content, 0)
    codes = map(told.OperatorCodes, range(told.OperatorCodesLength()))
    if all(code.BuiltinCode() != _LSTM for code in codes):
        return content  # unpacked, a large file takes its time
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    found = [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == _LSTM
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


def packed(model: Any) -> bytes:
    """Return the bytes of a file of a model in flatbuffers' objects."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _behind(outputs: list[int], makers: dict[int, Any]) -> set[int]:
    """Return the ids of the operations that compute tensors."""
    found = set[int]()
    waiting = list(outputs)
    while waiting:
        operator = makers.get(waiting.pop())
        if operator is not None and id(operator) not in found:
            found.add(id(operator))
            waiting.extend(int(tensor) for tensor in operator.inputs)
    return found


def _part(whole: Any, operators: list[Any], inputs: list[int], outputs: list[int]) -> Any:
    """Return a model of some operations; tensors are numbered anew, buffers only emptied."""
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
        buffer if place in held else schema.BufferT() for place, buffer in enumerate(whole.buffers)
    ]
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], []
    return model


def _has_constant_weights(model: Any, graph: Any, operator: Any) -> bool:
    places = operator.inputs[_WEIGHTS]
    return all(
        place >= 0 and model.buffers[graph.tensors[place].buffer].data is not None
        for place in places
    )


def _code(model: Any, place: int, numbers: dict[int, int]) -> int:
    """Return the index of the same operation's code in the version that rounds."""
    if place not in numbers:
        code = copy.copy(model.operatorCodes[place])
        code.version = max(code.version, _VERSION)
        model.operatorCodes.append(code)
        numbers[place] = len(model.operatorCodes) - 1
    return numbers[place]


def _round(model: Any, tensor: Any) -> None:
    """Round the weights of a tensor; others may share its buffer, so it gets one of its own."""
    weights = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    scale = np.float32(np.abs(weights).max(initial=0.0) / _LARGEST) or np.float32(1.0)
    buffer = schema.BufferT()
    buffer.data = np.round(weights / scale).astype(np.int8).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
