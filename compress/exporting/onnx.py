"""Keras to ONNX: float32, and int8 with quantize/dequantize nodes.

Ranges are calibrated on representative data or taken from a fake-quantized model. For the latter,
tf2onnx converts fake quantization to quantize/dequantize nodes but leaves kernels as floats that
lie on their grids. This module stores them as int8 with one scale per channel, and biases as int32
with the product of input and kernel scale: ONNX Runtime and OpenVINO need this for integer
arithmetic.

Kernels use 64 levels on either side of 0 (7 bits), depthwise kernels 127. Without VNNI both
runtimes add two products of uint8 and int8 in saturating 16-bit arithmetic: 2 x 255 x 64 fits. A
depthwise convolution adds no two products there (MLAS computes it in 32 bits). uint8 kernels would
be exact with 8 bits too, but MLAS has no VNNI kernel for them: ResNet-20 takes twice as long.
"""

from __future__ import annotations

import logging.handlers
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import replace_file, write_bytes
from compress.core.errors import InputError
from compress.core.lazy_modules import LazyModule, keras, tf
from compress.core.module_loading import FORMAT_PACKAGES, ONNX_PACKAGES, require_packages
from compress.exporting.conversions import convert, explain_failures
from compress.exporting.tracing import (
    PLAIN,
    REDUCED,
    Convertible,
    Examples,
    Port,
    TracedModel,
    number_names,
    read_examples,
    strip_calls,
)
from compress.model.keras_internals import prepare_tf2onnx
from compress.plan.output import ONNX_QAT

onnx = LazyModule("onnx")
_NUMBER = re.compile(r"__\d+")
CONVERTER = "the ONNX converter"
QUANTIZER = "ONNX Runtime's quantizer"
LEVELS, DEPTHWISE_LEVELS = 64, 127
INTEGER_OPSET = 13  # the first whose quantized kernels have a scale per channel
OFF_GRID = 0.02
"""Tolerated distance of a weight from its grid, in steps: weights are computed in float32."""
MOVED = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""Operators that do not change values."""
KERNELS = {"Conv": 0, "ConvTranspose": None, "MatMul": -1, "Gemm": -1}
"""Operators with kernels, and the kernel axis with one scale per entry; None: a single scale."""


def export_onnx(model: keras.Model, path: Path, *, opset: int | None = None) -> None:
    """Write a float32 `.onnx` file for batch size 1, in one atomic step.

    The file is validated by `onnx`. The caller compares its outputs with the model's.

    Args:
        model: A functional model or a built Sequential.
        path: Path of the file, ending in `.onnx`.
        opset: Version of the ONNX operator set; default: tf2onnx's.

    Raises:
        InputError: An input size is unknown, or tf2onnx does not know the opset.
        MissingDependency: onnx or tf2onnx is not installed.
        RunFailed: The converter refused the model, crashed or hung; the message says which.
    """
    with TracedModel(model) as traced:
        write_onnx(traced, path, opset=opset)


def write_onnx(
    traced: Convertible, path: Path, *, opset: int | None = None, whole_numbers: bool = False
) -> None:
    """Write an `.onnx` file of a traced model; see `export_onnx`.

    Args:
        traced: The model.
        path: Path of the file, ending in `.onnx`.
        opset: See `export_onnx`.
        whole_numbers: Whether the model is fake-quantized: kernels and biases become integers.

    Raises:
        InputError, MissingDependency, RunFailed: See `export_onnx`.
    """
    kind = ONNX_QAT if whole_numbers else "onnx"
    require_packages(ONNX_PACKAGES, f"format {kind}")
    check_opset(opset, [kind])
    saved = traced.ensure_saved(REDUCED if whole_numbers else PLAIN)
    with replace_file(path) as temporary, explain_failures(CONVERTER, kind, traced.model):
        convert(
            "onnx", saved=str(saved), path=str(temporary), ports=traced.ports, opset=opset,
            whole_numbers=whole_numbers,
        )  # fmt: skip


def quantize_onnx(source: Path, path: Path, representative: Examples) -> None:
    """Quantize a float32 `.onnx` file to int8, in one atomic step.

    Weights are quantized per channel and symmetrically, activations per tensor to uint8, with
    quantize/dequantize nodes (QDQ) that ONNX Runtime and OpenVINO both understand.

    Args:
        source: A file written by `export_onnx`.
        path: Path of the int8 file, ending in `.onnx`.
        representative: Calibration examples as model inputs (n, ...), one array per input.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RunFailed: The quantizer refused the file, crashed or hung; the message says which.
    """
    require_packages(FORMAT_PACKAGES["onnx_int8"], "format onnx_int8")
    names = number_names("input", len(representative))
    with tempfile.TemporaryDirectory() as folder, replace_file(path) as temporary:
        examples = Path(folder) / "examples.npz"
        arrays: dict[str, Any] = dict(zip(names, representative, strict=True))
        np.savez(examples, **arrays)
        with explain_failures(QUANTIZER, "onnx_int8", source.name):
            convert("onnx_int8", source=str(source), path=str(temporary), examples=str(examples))


def ensure_float32_file(traced: Convertible, *, opset: int | None = None) -> Path:
    """Return the float32 file of a traced model, written once into its folder.

    Args:
        traced: The model.
        opset: See `export_onnx`.

    Raises:
        InputError, MissingDependency, RunFailed: See `export_onnx`.
    """
    path = traced.directory / "float32.onnx"
    if not path.exists():
        write_onnx(traced, path, opset=opset)
    return path


def write_for_runtime(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write a model file for a runtime of `.onnx` files; see `Runtime.maker`.

    Args:
        traced: The model.
        kind: "int8", or any other kind for float32.
        stem: Path of the file without its suffix.
        inputs: Calibration examples (n, ...), one array per input.
    """
    path, plain = Path(f"{stem}.onnx"), ensure_float32_file(traced)
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
        saved: Folder of the SavedModel.
        path: The file to write.
        ports: Name, shape (batch axis included) and type of each input.
        opset: See `export_onnx`.
        whole_numbers: See `write_onnx`.
    """
    import tf2onnx

    prepare_tf2onnx()
    signature = [tf.TensorSpec(shape, kind, name=name) for name, shape, kind in ports]
    with _collect_errors() as problems:
        try:
            loaded = tf.saved_model.load(saved)  # a reference: its functions do not hold variables
            tf2onnx.convert.from_function(loaded.serve, signature, opset=opset, output_path=path)
            _check_and_normalize(Path(path), [name for name, *_ in ports])
        except Exception as error:  # tf2onnx and onnx raise many types
            if problems:
                raise RuntimeError(problems[0].getMessage()) from error
            raise
    if whole_numbers:
        quantize_kernels(path)


def convert_onnx_int8(source: str, path: str, examples: str) -> None:
    """Quantize an `.onnx` file, in the converter's process.

    Args:
        source: The float32 file.
        path: The file to write.
        examples: File of calibration examples; see `Convertible.save_examples`.
    """
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
        # x86 multiplies unsigned activations with signed weights in one instruction
        activation_type=quantization.QuantType.QUInt8,
        # 7-bit weights: without VNNI this instruction adds two products in 16 bits, which overflow
        # with 8-bit weights. The file must work on all machines.
        reduce_range=True,
    )


def quantize_kernels(path: str) -> None:
    """Store kernels and biases of a fake-quantized `.onnx` file as integers.

    Args:
        path: The file, changed in place.

    Raises:
        ValueError: A kernel does not lie on a grid.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    dequantized_names: dict[str, str] = {}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type in KERNELS and node.input[1] in constants:
            scale = _find_input_scale(makers.get(node.input[0]), makers, constants)
            if scale is not None:
                nodes += _rewrite_kernel(node, scale, graph, constants, dequantized_names)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def round_to_grid(
    kernel: npt.NDArray[Any], axis: int | None, name: str, levels: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int8]]:
    """Return the step sizes of a kernel and its integer values.

    Args:
        kernel: Floats that are multiples of a step.
        axis: Axis with one step per entry; None: one step for the whole kernel.
        name: Name of the kernel, for the error.
        levels: Largest integer of the grid: the largest weight divided by the step.

    Returns:
        Steps, (channels,) or (), and integers of the kernel's shape.

    Raises:
        ValueError: The kernel does not lie on such a grid.
    """
    other_axes = tuple(at for at in range(kernel.ndim) if at != axis)
    largest = np.abs(kernel).max(axis=other_axes if axis is not None else None)
    steps = np.maximum(np.asarray(largest, np.float64) / levels, np.finfo(np.float32).tiny)
    shape = [-1 if at == axis else 1 for at in range(kernel.ndim)]
    multiples = kernel / (steps.reshape(shape) if axis is not None else steps)
    integers = np.round(multiples)
    deviation = float(np.abs(multiples - integers).max())
    if deviation > OFF_GRID:
        raise ValueError(f"the kernel '{name}' lies {deviation:.2g} steps beside its grid")
    return steps.astype(np.float32), integers.astype(np.int8)


def check_opset(opset: int | None, formats: Iterable[str]) -> None:
    """Raise an error if formats cannot be written with an operator set.

    Args:
        opset: Version of the operator set; None: tf2onnx's own.
        formats: The formats; only those of ONNX have operator sets.

    Raises:
        InputError: tf2onnx does not know the operator set, or it is below 13 for an int8 format.
        MissingDependency: tf2onnx is not installed.
    """
    names = sorted(name for name in formats if name.startswith("onnx"))
    if opset is None or not names:
        return
    require_packages(ONNX_PACKAGES, f"format {names[-1]}")
    from tf2onnx.constants import OPSET_TO_IR_VERSION as KNOWN

    least, most = min(KNOWN) if names == ["onnx"] else INTEGER_OPSET, max(KNOWN)
    if not least <= opset <= most:
        raise InputError(
            f"opset must be in [{least}, {most}] for {names[-1]}. Received: {opset}. Leave it out."
        )


def _check_and_normalize(path: Path, inputs: Sequence[str]) -> None:
    """Validate a file and remove differences between two exports of the same model.

    Args:
        path: The file.
        inputs: Names of the model's inputs.
    """
    model = onnx.load(path)
    _drop_unread_inputs(model.graph, inputs)
    # tf2onnx numbers names by a counter of the process and keeps TensorFlow's own counter
    numbers: dict[str, str] = {}

    def normalize_name(name: str) -> str:
        plain = strip_calls(name)
        return _NUMBER.sub(lambda m: numbers.setdefault(m.group(), f"__{len(numbers) + 1}"), plain)

    def normalize_graph(graph: Any) -> None:
        for node in graph.node:
            node.name = normalize_name(node.name)
            node.input[:] = [normalize_name(name) for name in node.input]
            node.output[:] = [normalize_name(name) for name in node.output]
            for inner in _list_inner_graphs(node):
                normalize_graph(inner)
        for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            item.name = normalize_name(item.name)
        graph.doc_string = ""

    normalize_graph(model.graph)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _drop_unread_inputs(graph: Any, inputs: Sequence[str]) -> None:
    """Remove graph inputs that are not model inputs: they are constants that tf2onnx folded."""
    read = _collect_read_names(graph)
    for item in [item for item in graph.input if item.name.partition(":")[0] not in inputs]:
        if item.name in read:
            raise RuntimeError(f"the graph reads a tensor that no input gives: {item.name}")
        graph.input.remove(item)


def _collect_read_names(graph: Any) -> set[str]:
    """Return the names of all tensors that nodes read, including nodes in loops and branches."""
    names = {item.name for item in graph.output}
    for node in graph.node:
        names.update(node.input)
        names.update(*map(_collect_read_names, _list_inner_graphs(node)))
    return names


def _list_inner_graphs(node: Any) -> list[Any]:
    """Return the graphs inside a node: bodies of loops and branches."""
    return [
        inner
        for attribute in node.attribute
        for inner in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
    ]


@contextmanager
def _collect_errors() -> Iterator[list[logging.LogRecord]]:
    """Collect the errors that tf2onnx logs, which are more precise than its exceptions."""
    # tf2onnx has one logger per module; this is their parent
    logger, handler = logging.getLogger("tf2onnx"), logging.handlers.BufferingHandler(10_000)
    handler.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)


def _find_input_scale(
    maker: Any, makers: dict[str, Any], constants: dict[str, Any]
) -> float | None:
    """Return the scale of an operator's quantized input, or None for a float input."""
    while maker is not None and maker.op_type in MOVED:
        maker = makers.get(maker.input[0])
    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in constants:
        return None
    return float(onnx.numpy_helper.to_array(constants[maker.input[1]]))


def _rewrite_kernel(
    node: Any,
    scale: float,
    graph: Any,
    constants: dict[str, Any],
    dequantized_names: dict[str, str],
) -> list[Any]:
    """Make an operator's kernel and bias integers and return the nodes that dequantize them."""
    name, axis = node.input[1], KERNELS[node.op_type]
    kernel = onnx.numpy_helper.to_array(constants[name])
    attributes = {item.name: item.i for item in node.attribute}
    if axis == -1:  # the output axis of a matrix
        axis = 0 if attributes.get("transB") else kernel.ndim - 1
    groups = attributes.get("group", 1)
    depthwise = node.op_type == "Conv" and kernel.shape[1] == 1 and kernel.shape[0] == groups
    steps, integers = round_to_grid(kernel, axis, name, DEPTHWISE_LEVELS if depthwise else LEVELS)
    nodes = []
    key = f"{name}:{axis}"
    if key not in dequantized_names:
        dequantized_names[key] = f"{name}_dequantized"
        nodes.append(_add_dequantize_node(graph, dequantized_names[key], integers, steps, axis))
    node.input[1] = dequantized_names[key]
    if len(node.input) > 2 and node.input[2] in constants:
        bias = onnx.numpy_helper.to_array(constants[node.input[2]])
        step = (scale * steps).astype(np.float32)
        rounded = np.round(bias / step).astype(np.int32)
        label = f"{node.name or node.output[0]}_bias"
        nodes.append(
            _add_dequantize_node(graph, label, rounded, np.broadcast_to(step, bias.shape), 0)
        )
        node.input[2] = label
    return nodes


def _add_dequantize_node(
    graph: Any, name: str, integers: npt.NDArray[Any], steps: npt.NDArray[Any], axis: int | None
) -> Any:
    """Add integers, scales and zero points to the graph; return the node, which the caller adds."""
    zeros = np.zeros(np.shape(steps), integers.dtype)
    parts = {"whole": integers, "step": np.asarray(steps, np.float32), "zero": zeros}
    for ending, values in parts.items():
        graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}_{ending}"))
    inputs = [f"{name}_{ending}" for ending in parts]
    axes = {} if axis is None or not np.ndim(steps) else {"axis": axis}
    return onnx.helper.make_node("DequantizeLinear", inputs, [name], name, **axes)
