"""Keras to ONNX: float32, and int8 with quantization nodes.

Ranges are calibrated on representative data, or are those of a model that rounds its values itself.
tf2onnx turns these into quantize/dequantize nodes; kernels come as floats that lie on their grids:
here they become int8 with a scale a channel, and biases int32 in steps of both scales, as ONNX
Runtime and OpenVINO want them for integer arithmetic.

Kernels have 64 steps on either side of 0, 7 bits, those of depthwise convolutions 127. Without VNNI
both runtimes add two products of uint8 and int8 in 16 bits that saturate: 2 x 255 x 64 fits, and a
depthwise convolution has no two products to add there (MLAS computes them in 32 bits). uint8
kernels would be exact with 8 bits too, but have no VNNI instruction in MLAS: ResNet-20 takes
twice as long.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import replacing, write_bytes
from compress.core.errors import InputError
from compress.core.interpreter import FORMATS, MAKING_ONNX, require_packages
from compress.exporting.conversions import convert, explained
from compress.exporting.traced import (
    PLAIN,
    REDUCED,
    Convertible,
    Examples,
    Port,
    Traced,
    numbered,
    read_examples,
    without_calls,
)
from compress.model.internals import prepare_tf2onnx
from compress.plan.output import ONNX_QAT

if TYPE_CHECKING:
    import keras

_NUMBER = re.compile(r"__\d+")
CONVERTER = "the ONNX converter"
QUANTIZER = "ONNX Runtime's quantizer"
LEVELS, DEPTHWISE_LEVELS = 64, 127
OFF_GRID = 0.02
"""Steps by which a weight may lie beside its grid: they were computed in float32."""
MOVED = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that leave values as they are."""
KERNELS = {"Conv": 0, "ConvTranspose": None, "MatMul": -1, "Gemm": -1}
"""Operators with kernels, and the axis of these that has a scale each; None: one for all."""


def export_onnx(model: keras.Model, path: Path, *, opset: int | None = None) -> None:
    """Write an `.onnx` file for batch size 1 in float32, in one atomic step.

    The file is checked by `onnx`; what it computes is the caller's to compare.

    Args:
        model: A functional model or a built Sequential.
        path: Ends in `.onnx`.
        opset: Version of ONNX's operators; default: tf2onnx's.

    Raises:
        InputError: An input size is unknown, or tf2onnx does not know the opset.
        MissingDependency: onnx or tf2onnx is not installed.
        RunFailed: The converter refused the model, crashed or hung; the message says which.
    """
    with Traced(model) as traced:
        write_onnx(traced, path, opset=opset)


def write_onnx(
    traced: Convertible, path: Path, *, opset: int | None = None, whole_numbers: bool = False
) -> None:
    """Write an `.onnx` file of a traced model; see `export_onnx`.

    Args:
        traced: The model.
        path: Ends in `.onnx`.
        opset: See `export_onnx`.
        whole_numbers: The model rounds its values itself: kernels and biases become integers.
    """
    kind = ONNX_QAT if whole_numbers else "onnx"
    require_packages(MAKING_ONNX, f"format {kind}")
    _check_opset(opset)
    saved = traced.saved(REDUCED if whole_numbers else PLAIN)
    with replacing(path) as temporary, explained(CONVERTER, kind, traced.model):
        convert(
            "onnx", saved=str(saved), path=str(temporary), ports=traced.ports, opset=opset,
            whole_numbers=whole_numbers,
        )  # fmt: skip


def quantize_onnx(source: Path, path: Path, representative: Examples) -> None:
    """Make an int8 `.onnx` file of a float32 one, in one atomic step.

    Weights are quantized per channel and symmetric, activations per tensor to uint8, with
    quantize/dequantize nodes (QDQ) that ONNX Runtime and OpenVINO both understand.

    Args:
        source: From `export_onnx`.
        path: Ends in `.onnx`.
        representative: Model inputs (n, ...), one array an input, that calibrate the
            activations' ranges.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RunFailed: The quantizer refused the file, crashed or hung; the message says which.
    """
    require_packages(FORMATS["onnx_int8"], "format onnx_int8")
    given = [representative] if isinstance(representative, np.ndarray) else representative
    names = numbered("input", len(given))
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        examples = Path(folder) / "examples.npz"
        arrays: dict[str, Any] = dict(zip(names, given, strict=True))
        np.savez(examples, **arrays)
        with explained(QUANTIZER, "onnx_int8", source.name):
            convert("onnx_int8", source=str(source), path=str(temporary), examples=str(examples))


def plain_file(traced: Convertible, *, opset: int | None = None) -> Path:
    """Return the float32 file of a traced model, written once beside it."""
    path = traced.place / "float32.onnx"
    if not path.exists():
        write_onnx(traced, path, opset=opset)
    return path


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write the file for a runtime of `.onnx` files; see `Runtime.maker`."""
    path, plain = Path(f"{stem}.onnx"), plain_file(traced)
    if kind == "int8":
        quantize_onnx(plain, path, inputs)
    else:
        write_bytes(path, plain.read_bytes())
    return path


def convert_onnx(
    saved: str, path: str, ports: list[Port], opset: int | None, whole_numbers: bool
) -> None:
    """Convert a SavedModel, in the converter's process.

    Args:
        saved: Its folder.
        path: The file to write.
        ports: Name, shape (batch axis included) and type of each input.
        opset: See `export_onnx`.
        whole_numbers: See `write_onnx`.
    """
    import tensorflow as tf
    import tf2onnx

    prepare_tf2onnx()
    signature = [tf.TensorSpec(shape, kind, name=name) for name, shape, kind in ports]
    with _problems() as problems:
        try:
            loaded = tf.saved_model.load(saved)  # held: its functions do not hold its variables
            tf2onnx.convert.from_function(loaded.serve, signature, opset=opset, output_path=path)
            _check(Path(path), [name for name, *_ in ports])
        except Exception as error:  # tf2onnx and onnx raise many kinds
            if problems:
                raise RuntimeError(problems[0]) from error
            raise
    if whole_numbers:
        whole_number_kernels(path)


def convert_onnx_int8(source: str, path: str, examples: str) -> None:
    """Quantize an `.onnx` file, in the converter's process.

    Args:
        source: The float32 file.
        path: The file to write.
        examples: A file of model inputs; see `compress.exporting.traced`.
    """
    import onnx
    from onnxruntime import quantization

    inputs = [
        (item.name, onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type))
        for item in onnx.load(source).graph.input
    ]

    rows = (
        {name: part.astype(kind) for (name, kind), part in zip(inputs, row.values(), strict=True)}
        for row in read_examples(examples)
    )

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            return next(rows, None)

    quantization.quantize_static(
        source,
        path,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        # unsigned: what x86 multiplies with signed weights in one instruction
        activation_type=quantization.QuantType.QUInt8,
        # weights of 7 bits: without VNNI that instruction adds two products in 16 bits, and 8 bits
        # overflow there; a file is for all machines
        reduce_range=True,
    )


def whole_number_kernels(path: str) -> None:
    """Rewrite an `.onnx` file of rounded values: kernels and biases become integers.

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


def on_grid(
    kernel: npt.NDArray[Any], axis: int | None, name: str, levels: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Return the steps of a kernel and its integers.

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


def _check_opset(opset: int | None) -> None:
    if opset is None:
        return
    from tf2onnx import constants

    low, high = min(constants.OPSET_TO_IR_VERSION), max(constants.OPSET_TO_IR_VERSION)
    if not low <= opset <= high:
        raise InputError(f"opset must be in [{low}, {high}]. Received: {opset}.")


def _check(path: Path, inputs: Sequence[str]) -> None:
    """Check a file and remove differences between two exports of one model.

    Args:
        path: Of the file.
        inputs: The names of the model's inputs.
    """
    import onnx

    model = onnx.load(path)
    _drop_unread_inputs(model.graph, inputs)
    # tf2onnx numbers names by a counter of the process, and notes TensorFlow's own counter
    numbers: dict[str, str] = {}

    def renamed(name: str) -> str:
        plain = without_calls(name)
        return _NUMBER.sub(lambda m: numbers.setdefault(m.group(), f"__{len(numbers) + 1}"), plain)

    def rename(graph: Any) -> None:
        for node in graph.node:
            node.name = renamed(node.name)
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
            for inner in _list_inner_graphs(node):
                rename(inner)
        for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            item.name = renamed(item.name)
        graph.doc_string = ""

    rename(model.graph)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _drop_unread_inputs(graph: Any, inputs: Sequence[str]) -> None:
    """Remove inputs that are not the model's: constants that were folded into what read them."""
    read = _names_read(graph)
    for item in [item for item in graph.input if item.name.partition(":")[0] not in inputs]:
        if item.name in read:
            raise RuntimeError(f"the graph reads a tensor that no input gives: {item.name}")
        graph.input.remove(item)


def _names_read(graph: Any) -> set[str]:
    """Return the names of all tensors that nodes read, in loops and branches too."""
    found = {item.name for item in graph.output}
    for node in graph.node:
        found.update(node.input)
        found.update(*map(_names_read, _list_inner_graphs(node)))
    return found


def _list_inner_graphs(node: Any) -> list[Any]:
    """Return the graphs inside a node: bodies of loops and branches."""
    return [
        inner
        for attribute in node.attribute
        for inner in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


@contextmanager
def _problems() -> Iterator[list[str]]:
    """Collect the errors that tf2onnx logs, which say more than its exceptions."""
    problems: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    # tf2onnx makes a logger a module; all hang on this one
    logger, keep = logging.getLogger("tf2onnx"), Keep(logging.ERROR)
    logger.addHandler(keep)
    try:
        yield problems
    finally:
        logger.removeHandler(keep)


def _input_scale(maker: Any, makers: dict[str, Any], constants: dict[str, Any]) -> float | None:
    """Return the step of an operator's input, or None if that is a float."""
    from onnx import numpy_helper

    while maker is not None and maker.op_type in MOVED:
        maker = makers.get(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in constants:
        return None
    return float(numpy_helper.to_array(constants[maker.input[1]]))


def _rewritten(
    node: Any, scale: float, graph: Any, constants: dict[str, Any], made: dict[str, str]
) -> list[Any]:
    """Give an operator integers for its kernel and bias; return the nodes that dequantize them."""
    from onnx import numpy_helper

    name, axis = node.input[1], KERNELS[node.op_type]
    kernel = numpy_helper.to_array(constants[name])
    attributes = {item.name: item.i for item in node.attribute}
    if axis == -1:  # the axis of a matrix that has the outputs
        axis = 0 if attributes.get("transB") else kernel.ndim - 1
    groups = attributes.get("group", 1)
    depthwise = node.op_type == "Conv" and kernel.shape[1] == 1 and kernel.shape[0] == groups
    steps, whole = on_grid(kernel, axis, name, DEPTHWISE_LEVELS if depthwise else LEVELS)
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
