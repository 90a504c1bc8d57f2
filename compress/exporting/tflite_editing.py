"""Edits of `.tflite` files: splitting, resizing inputs, 8-bit inputs and int8 LSTM weights.

For a model with uint8 inputs, TensorFlow's converter and LiteRT Quantizer convert pixels to floats
and quantize these to int8 again. A single integer operation does the same.

LiteRT's fused LSTM operation can compute with int8 weights: it quantizes its inputs dynamically and
keeps its state in floats. TensorFlow's converter quantizes LSTM weights this way only when it
quantizes a float model dynamically. In a graph with fake quantization it quantizes only tensors
that have ranges, so LSTM weights stay in float32.
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
"""Operation inputs that hold weights: four kernels of the features, four of the state."""
_LARGEST = 127
_VERSION = 3
"""First operation version with asymmetric dynamic quantization of its inputs."""
_LSTM = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM


def split_joined_graphs(content: bytes, io_counts: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Split a file of several unconnected graphs into one file per graph.

    Args:
        content: A `.tflite` file; its graphs share no inputs and no operations.
        io_counts: Number of file inputs and number of file outputs of each graph, in order.
    """
    whole = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = whole.subgraphs[0]
    makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
    inputs, outputs = iter(graph.inputs), iter(graph.outputs)
    for input_count, output_count in io_counts:
        results = [int(tensor) for tensor in islice(outputs, output_count)]
        ancestors = _find_ancestors(results, makers)
        operators = [operator for operator in graph.operators if id(operator) in ancestors]
        yield pack_model(
            _extract_part(whole, operators, list(islice(inputs, input_count)), results)
        )


def resize_inputs(content: bytes, shapes: Sequence[Sequence[int]]) -> bytes:
    """Return a copy of a file with other input shapes.

    Only the inputs are changed: LiteRT infers all other shapes when it prepares the file.

    Args:
        content: A `.tflite` file.
        shapes: Shape of each input of the first graph, in order, with the batch axis.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    for number, shape in zip(graph.inputs, shapes, strict=True):
        tensor = graph.tensors[number]
        tensor.shape, tensor.shapeSignature = np.array(shape, np.int32), None
    return pack_model(model)


def quantize_byte_inputs(content: bytes) -> bytes:
    """Return a copy of a file whose uint8 or int8 inputs are read as quantized values.

    Where an input is cast to floats that are then quantized to 8 bits, the cast is removed and the
    input itself becomes quantized, with scale 1 and zero point 0. Pixels are fed as before.

    Args:
        content: A `.tflite` file; a file without such inputs is returned unchanged.
    """
    codes, kinds = schema.BuiltinOperator, (schema.TensorType.UINT8, schema.TensorType.INT8)
    view = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    inputs = [view.Tensors(view.Inputs(index)) for index in range(view.InputsLength())]
    if all(tensor.Type() not in kinds for tensor in inputs):
        return content  # unpacking a large file is slow
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]

    def find_readers(tensor: int, code: int) -> list[Any]:
        """Return the operations that read a tensor, or none if one of them has another code."""
        readers = [operator for operator in graph.operators if tensor in operator.inputs]
        is_uniform = all(
            model.operatorCodes[item.opcodeIndex].builtinCode == code for item in readers
        )
        return readers if is_uniform and tensor not in graph.outputs else []

    changed = False
    for index in map(int, graph.inputs):
        casts = find_readers(index, codes.CAST) if graph.tensors[index].type in kinds else []
        quantized = [find_readers(int(cast.outputs[0]), codes.QUANTIZE) for cast in casts]
        operators = [item for part in quantized for item in part]
        results = [graph.tensors[item.outputs[0]] for item in operators]
        if not casts or not all(quantized) or any(item.type not in kinds for item in results):
            continue
        for operator in operators:
            operator.inputs = np.array([index], np.int32)
        graph.operators = [item for item in graph.operators if item not in casts]
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = (
            np.array([1.0], np.float32),
            np.array([0], np.int64),
        )
        graph.tensors[index].quantization = quantization
        changed = True
    return pack_model(model) if changed else content


def quantize_lstms(content: bytes) -> bytes:
    """Return a copy of a file whose LSTM weights are int8, with one scale per matrix.

    A weight w becomes round(w / s), in [-127, 127], with s = max |w| / 127 over its matrix. This is
    what TensorFlow's converter does without examples (`Optimize.DEFAULT`).

    Args:
        content: A `.tflite` file; a file without LSTMs of constant weights is returned unchanged.
    """
    view = schema.Model.GetRootAsModel(content, 0)
    codes = map(view.OperatorCodes, range(view.OperatorCodesLength()))
    if all(code.BuiltinCode() != _LSTM for code in codes):
        return content  # unpacking a large file is slow
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    lstms = [
        (graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == _LSTM
        and _has_constant_weights(model, graph, operator)
    ]
    if not lstms:
        return content
    rounding_codes: dict[int, int] = {}  # by original code, which float LSTMs keep using
    for graph, operator in lstms:
        operator.opcodeIndex = _find_rounding_code(model, operator.opcodeIndex, rounding_codes)
        operator.builtinOptions.asymmetricQuantizeInputs = True
        for index in operator.inputs[_WEIGHTS]:
            tensor = graph.tensors[index]
            if tensor.type == schema.TensorType.FLOAT32:  # LSTMs may share a weight tensor
                _round_weights(model, tensor)
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {item.buffer for item in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    return pack_model(model)


def pack_model(model: Any) -> bytes:
    """Return the serialized bytes of a model given as flatbuffers objects."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _find_ancestors(outputs: list[int], makers: dict[int, Any]) -> set[int]:
    """Return the ids of the operations that the given tensors depend on."""
    ancestors = set[int]()
    waiting = list(outputs)
    while waiting:
        operator = makers.get(waiting.pop())
        if operator is not None and id(operator) not in ancestors:
            ancestors.add(id(operator))
            waiting.extend(int(tensor) for tensor in operator.inputs)
    return ancestors


def _extract_part(whole: Any, operators: list[Any], inputs: list[int], outputs: list[int]) -> Any:
    """Return a model of some operations, with renumbered tensors; unused buffers are emptied."""
    graph = whole.subgraphs[0]
    used = [
        *inputs,
        *outputs,
        *(tensor for op in operators for tensor in [*op.inputs, *op.outputs]),
    ]
    tensors = list(dict.fromkeys(int(tensor) for tensor in used if tensor >= 0))
    new_index = {old: new for new, old in enumerate(tensors)} | {-1: -1}

    def renumber(old: Any) -> Any:
        return np.array([new_index[int(tensor)] for tensor in old], np.int32)

    part = copy.copy(graph)
    part.tensors = [graph.tensors[tensor] for tensor in tensors]
    part.inputs, part.outputs = renumber(inputs), renumber(outputs)
    part.operators = []
    for operator in operators:
        renumbered_operator = copy.copy(operator)
        renumbered_operator.inputs, renumbered_operator.outputs = (
            renumber(operator.inputs),
            renumber(operator.outputs),
        )
        part.operators.append(renumbered_operator)
    model = copy.copy(whole)
    # loops and branches refer to other subgraphs by index
    model.subgraphs = [part, *whole.subgraphs[1:]]
    used_buffers = {tensor.buffer for subgraph in model.subgraphs for tensor in subgraph.tensors}
    model.buffers = [
        buffer if index in used_buffers else schema.BufferT()
        for index, buffer in enumerate(whole.buffers)
    ]
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], []
    return model


def _has_constant_weights(model: Any, graph: Any, operator: Any) -> bool:
    indices = operator.inputs[_WEIGHTS]
    return all(
        index >= 0 and model.buffers[graph.tensors[index].buffer].data is not None
        for index in indices
    )


def _find_rounding_code(model: Any, index: int, rounding_codes: dict[int, int]) -> int:
    """Return the index of the operation code for LSTMs with int8 weights."""
    if index not in rounding_codes:
        code = copy.copy(model.operatorCodes[index])
        code.version = max(code.version, _VERSION)
        model.operatorCodes.append(code)
        rounding_codes[index] = len(model.operatorCodes) - 1
    return rounding_codes[index]


def _round_weights(model: Any, tensor: Any) -> None:
    """Quantize a weight tensor, in a buffer of its own because buffers may be shared."""
    weights = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
    scale = np.float32(np.abs(weights).max(initial=0.0) / _LARGEST) or np.float32(1.0)
    buffer = schema.BufferT()
    buffer.data = np.round(weights / scale).astype(np.int8).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.type = len(model.buffers) - 1, schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([0], np.int64)
