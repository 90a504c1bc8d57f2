"""Keras -> ONNX: float32, and int8 with quantization nodes calibrated on representative data."""

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
    Convertible,
    Examples,
    Port,
    Traced,
    numbered,
    read_examples,
    without_calls,
    write_examples,
)
from compress.model.internals import prepare_tf2onnx
from compress.plan.output import ONNX_QAT

if TYPE_CHECKING:
    import keras

_NUMBER = re.compile(r"__\d+")
CONVERTER = "the ONNX converter"
QUANTIZER = "ONNX Runtime's quantizer"


def export_onnx(model: keras.Model, path: Path, *, opset: int | None = None) -> None:
    """Writes an `.onnx` file for batch size 1 in float32, in one atomic step.

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
    """Writes an `.onnx` file of a traced model; see `export_onnx`.

    Args:
        traced: The model.
        path: Ends in `.onnx`.
        opset: See `export_onnx`.
        whole_numbers: The model rounds its values itself: kernels and biases become integers.
    """
    kind, step = (ONNX_QAT, "onnx_qat") if whole_numbers else ("onnx", "onnx")
    require_packages(MAKING_ONNX, f"format {kind}")
    _check_opset(opset)
    saved = traced.saved_reduced() if whole_numbers else traced.saved_plain()
    with replacing(path) as temporary, explained(CONVERTER, kind, traced.model):
        convert(step, saved=str(saved), path=str(temporary), ports=traced.ports, opset=opset)


def quantize_onnx(source: Path, path: Path, representative: Examples) -> None:
    """Makes an int8 `.onnx` file of a float32 one, in one atomic step.

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
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        examples = Path(folder) / "examples.npz"
        given = [representative] if isinstance(representative, np.ndarray) else representative
        write_examples(
            examples, given, [(name, (), str(array.dtype)) for name, array in
                              zip(numbered("input", len(given)), given, strict=True)]
        )  # fmt: skip
        with explained(QUANTIZER, "onnx_int8", source.name):
            convert("onnx_int8", source=str(source), path=str(temporary), examples=str(examples))


def plain_file(traced: Convertible, *, opset: int | None = None) -> Path:
    """Returns the float32 file of a traced model, written once beside it."""
    path = traced.place / "float32.onnx"
    if not path.exists():
        write_onnx(traced, path, opset=opset)
    return path


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Writes the file that a runtime of `.onnx` files is given; see `Runtime.maker`."""
    path, plain = Path(f"{stem}.onnx"), plain_file(traced)
    if kind == "int8":
        quantize_onnx(plain, path, inputs)
    else:
        write_bytes(path, plain.read_bytes())
    return path


def convert_onnx(saved: str, path: str, ports: list[Port], opset: int | None) -> None:
    """Converts a SavedModel, in the converter's process.

    Args:
        saved: Its folder.
        path: The file to write.
        ports: Name, shape (batch axis included) and type of each input.
        opset: See `export_onnx`.
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


def convert_onnx_qat(saved: str, path: str, ports: list[Port], opset: int | None) -> None:
    """Converts a SavedModel that rounds its values, in the converter's process.

    Args:
        saved, path, ports, opset: See `convert_onnx`.
    """
    from compress.exporting.onnx_ranges import whole_number_kernels

    convert_onnx(saved, path, ports, opset)
    whole_number_kernels(path)


def convert_onnx_int8(source: str, path: str, examples: str) -> None:
    """Quantizes an `.onnx` file, in the converter's process.

    Args:
        source: The float32 file.
        path: The file to write.
        examples: A file of model inputs; see `compress.exporting.traced`.
    """
    import onnx
    from onnxruntime import quantization

    rows = iter(read_examples(examples))
    inputs = [
        (item.name, onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type))
        for item in onnx.load(source).graph.input
    ]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            row = next(rows, None)
            if row is None:
                return None
            parts = zip(inputs, row.values(), strict=True)
            return {name: part.astype(kind) for (name, kind), part in parts}

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


def _check_opset(opset: int | None) -> None:
    if opset is None:
        return
    from tf2onnx import constants

    low, high = min(constants.OPSET_TO_IR_VERSION), max(constants.OPSET_TO_IR_VERSION)
    if not low <= opset <= high:
        raise InputError(f"opset must be in [{low}, {high}]. Received: {opset}.")


def _check(path: Path, inputs: Sequence[str]) -> None:
    """Check a file and take out what differs between two exports of one model.

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
            for attribute in node.attribute:  # loops and branches hold graphs of their own
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
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
    for item in list(graph.input):
        name = item.name
        if name.partition(":")[0] in inputs:
            continue
        if name in read:
            raise RuntimeError(f"the graph reads a tensor that no input gives: {name}")
        graph.input.remove(item)


def _names_read(graph: Any) -> set[str]:
    """Return the names of all tensors that nodes read, in loops and branches too."""
    found = {item.name for item in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                found |= _names_read(inner)
    return found


@contextmanager
def _problems() -> Iterator[list[str]]:
    """Gives the errors that tf2onnx logs: they say more than what it raises then."""
    problems: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                problems.append(record.getMessage())

    # tf2onnx makes a logger a module; all hang on this one
    logger, keep = logging.getLogger("tf2onnx"), Keep()
    logger.addHandler(keep)
    try:
        yield problems
    finally:
        logger.removeHandler(keep)
