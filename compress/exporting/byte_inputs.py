"""Inputs of bytes in a `.tflite` file: integers as they are, with no way through floats.

TensorFlow's converter and LiteRT Quantizer make floats of the pixels of a model that takes uint8,
and round these to int8 again. One operation of integers does the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.exporting.tflite_parts import packed


def with_byte_inputs(content: bytes) -> bytes:
    """Return a file whose inputs of uint8 or int8 are read as quantized numbers.

    Where an input is cast to floats that are quantized to 8 bits, the cast is left out: the input
    itself is quantized, with scale 1 and zero point 0, so that pixels are fed as before.

    Args:
        content: A `.tflite` file; one without such inputs is returned as it is.
    """
    from ai_edge_litert import schema_py_generated as schema

    codes, kinds = schema.BuiltinOperator, (schema.TensorType.UINT8, schema.TensorType.INT8)
    told = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
    inputs = [told.Tensors(told.Inputs(place)) for place in range(told.InputsLength())]
    if all(tensor.Type() not in kinds for tensor in inputs):
        return content  # unpacked, a large file takes its time
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]

    def readers(tensor: int, code: int) -> list[Any]:
        """Return what reads a tensor; nothing where one of it is another operation."""
        found = [operator for operator in graph.operators if tensor in operator.inputs]
        same = all(model.operatorCodes[item.opcodeIndex].builtinCode == code for item in found)
        return found if same and tensor not in graph.outputs else []

    changed = False
    for place in map(int, graph.inputs):
        casts = readers(place, codes.CAST)
        quantized = [readers(int(cast.outputs[0]), codes.QUANTIZE) for cast in casts]
        results = [graph.tensors[item.outputs[0]] for part in quantized for item in part]
        if (
            graph.tensors[place].type not in kinds
            or not casts
            or not all(quantized)
            or any(tensor.type not in kinds for tensor in results)
        ):
            continue
        for operator in (item for part in quantized for item in part):
            operator.inputs = np.array([place], np.int32)
        graph.operators = [item for item in graph.operators if item not in casts]
        known = schema.QuantizationParametersT()
        known.scale, known.zeroPoint = np.array([1.0], np.float32), np.array([0], np.int64)
        graph.tensors[place].quantization = known
        changed = True
    return packed(model) if changed else content
