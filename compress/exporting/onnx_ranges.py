"""ONNX files of whole numbers, from the ranges of a model that rounds its values itself.

tf2onnx turns the ranges of values into quantize/dequantize nodes. Kernels come as floats that lie
on their grids: here they become int8 with a scale a channel, and biases int32 in steps of both
scales, as ONNX Runtime and OpenVINO want them for integer arithmetic.

Kernels have 64 steps on either side of 0, 7 bits, those of depthwise convolutions 127. Without VNNI
both runtimes add two products of uint8 and int8 in 16 bits that saturate: 2 x 255 x 64 fits, and a
depthwise convolution has no two products to add there (MLAS computes them in 32 bits). uint8
kernels would be exact with 8 bits too, but have no VNNI instruction in MLAS: ResNet-20 takes
twice as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LEVELS, DEPTHWISE_LEVELS = 64, 127
OFF_GRID = 0.02
"""Steps by which a weight may lie beside its grid: they were computed in float32."""
MOVED = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that leave values as they are."""
KERNELS = {"Conv": 0, "ConvTranspose": None, "MatMul": -1, "Gemm": -1}
"""Operators with kernels, and the axis of these that has a scale each; None: one for all."""


def whole_number_kernels(path: str) -> None:
    """Rewrites an `.onnx` file whose values are rounded: kernels and biases become integers.

    Args:
        path: The file; it is changed in place.

    Raises:
        ValueError: A kernel does not lie on a grid.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    made: dict[str, str] = {}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type in KERNELS and node.input[1] in constants:
            scale = _input_scale(makers.get(node.input[0]), makers, constants)
            if scale is not None:
                nodes += _rewritten(node, scale, graph, constants, made)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def _input_scale(maker: Any, makers: dict[str, Any], constants: dict[str, Any]) -> float | None:
    """Returns the step of what an operator is fed; None: it is fed floats."""
    from onnx import numpy_helper

    while maker is not None and maker.op_type in MOVED:
        maker = makers.get(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in constants:
        return None
    return float(numpy_helper.to_array(constants[maker.input[1]]))


def _rewritten(
    node: Any, scale: float, graph: Any, constants: dict[str, Any], made: dict[str, str]
) -> list[Any]:
    """Gives an operator integers for its kernel and its bias; returns what dequantizes them."""
    from onnx import numpy_helper

    name, axis = node.input[1], KERNELS[node.op_type]
    kernel = numpy_helper.to_array(constants[name])
    if axis == -1:
        axis = _outputs_of(node, kernel.ndim)
    steps, whole = on_grid(kernel, axis, name, _levels_of(node, kernel.shape))
    nodes = []
    key = f"{name}:{axis}"
    if key not in made:
        made[key] = f"{name}_dequantized"
        nodes.append(_dequantized(graph, made[key], whole, steps, axis))
    node.input[1] = made[key]
    if len(node.input) > 2 and node.input[2] in constants:
        bias = numpy_helper.to_array(constants[node.input[2]])
        step = (scale * steps).astype(np.float32)
        rounded = np.round(bias / step).astype(np.int32)
        label = f"{node.name or node.output[0]}_bias"
        nodes.append(_dequantized(graph, label, rounded, np.broadcast_to(step, bias.shape), 0))
        node.input[2] = label
    return nodes


def _outputs_of(node: Any, rank: int) -> int:
    """Returns the axis of a matrix that has the outputs."""
    turned = any(item.name == "transB" and item.i for item in node.attribute)
    return 0 if turned else rank - 1


def _levels_of(node: Any, shape: tuple[int, ...]) -> int:
    """Returns the steps of an operator's kernel on either side of 0."""
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    depthwise = node.op_type == "Conv" and shape[1] == 1 and shape[0] == groups
    return DEPTHWISE_LEVELS if depthwise else LEVELS


def on_grid(
    kernel: npt.NDArray[Any], axis: int | None, name: str, levels: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Returns the steps of a kernel and its whole numbers.

    Args:
        kernel: Floats that were rounded to steps.
        axis: That has a step each; None: one for all.
        name: Of the kernel, for the error.
        levels: How many steps its largest value is.

    Returns:
        (channels,) or (), and the kernel's shape.

    Raises:
        ValueError: It does not lie on such a grid.
    """
    others = tuple(at for at in range(kernel.ndim) if at != axis)
    largest = np.abs(kernel).max(axis=others if axis is not None else None)
    steps = np.maximum(np.asarray(largest, np.float64) / levels, np.finfo(np.float32).tiny)
    shape = [-1 if at == axis else 1 for at in range(kernel.ndim)]
    parts = kernel / (steps.reshape(shape) if axis is not None else steps)
    whole = np.round(parts)
    beside = float(np.abs(parts - whole).max())
    if beside > OFF_GRID:
        raise ValueError(f"the kernel '{name}' lies {beside:.2g} steps beside its grid")
    return steps.astype(np.float32), whole.astype(np.int8)


def _dequantized(
    graph: Any, name: str, whole: npt.NDArray[Any], steps: npt.NDArray[Any], axis: int | None
) -> Any:
    from onnx import helper, numpy_helper

    zeros = np.zeros(np.shape(steps), whole.dtype)
    parts = {"whole": whole, "step": np.asarray(steps, np.float32), "zero": zeros}
    for ending, values in parts.items():
        graph.initializer.append(numpy_helper.from_array(values, f"{name}_{ending}"))
    inputs = [f"{name}_{ending}" for ending in parts]
    axes = {} if axis is None or not np.ndim(steps) else {"axis": axis}
    return helper.make_node("DequantizeLinear", inputs, [name], name, **axes)
