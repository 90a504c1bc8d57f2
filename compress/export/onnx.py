"""Keras -> ONNX: float32, and int8 with quantization nodes calibrated on representative data."""

from __future__ import annotations

import importlib.util
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.errors import InputError, MissingDependency, RunFailed
from compress.files import replacing, write_bytes
from compress.io import float32_model
from compress.quiet import captured_stderr, silenced_stdout

if TYPE_CHECKING:
    import keras

_NUMBER = re.compile(r"__\d+")
INSTALL = "must be installed to export ONNX files: pip install 'paretune[onnx]'"


def export_onnx(model: keras.Model, path: Path, *, opset: int | None = None) -> None:
    """Writes an `.onnx` file for batch size 1 in float32, in one atomic step.

    The file is checked by `onnx`; what it computes is the caller's to compare.

    Args:
        model: A functional model or a built Sequential with one input.
        path: Ends in `.onnx`.
        opset: Version of ONNX's operators; default: tf2onnx's.

    Raises:
        InputError: An input size is unknown, or tf2onnx does not know the opset.
        MissingDependency: onnx or tf2onnx is not installed.
        RunFailed: The converter refused the model; the message carries its reason.
    """
    import keras

    for name in ("onnx", "tf2onnx"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(f"{name} {INSTALL}")
    shape = tuple(model.inputs[0].shape[1:])
    if any(size is None for size in shape):
        raise InputError(
            f"Model '{model.name}' must have a known input size to be exported. Received: {shape}."
        )
    _check_opset(opset)
    signature = [keras.InputSpec(shape=(1, *shape), dtype="float32", name="input")]
    plain = float32_model(model)
    with replacing(path) as temporary, _quiet() as problems, _plain_operations(plain):
        try:
            plain.export(
                str(temporary), format="onnx", verbose=False, input_signature=signature,
                opset_version=opset,
            )  # fmt: skip
            _check(temporary)
        except Exception as error:  # tf2onnx and onnx raise many kinds
            first = (problems or [str(error).strip() or repr(error)])[0].splitlines()[0]
            raise RunFailed(f"The ONNX converter refused model '{model.name}': {first}") from error


def quantize_onnx(source: Path, path: Path, representative: npt.NDArray[np.float32]) -> None:
    """Makes an int8 `.onnx` file of a float32 one, in one atomic step.

    Weights are quantized per channel and symmetric, activations per tensor to uint8, with
    quantize/dequantize nodes (QDQ) that ONNX Runtime and OpenVINO both understand.

    Args:
        source: From `export_onnx`.
        path: Ends in `.onnx`.
        representative: Model inputs (n, ...) that calibrate the activations' ranges.

    Raises:
        MissingDependency: onnxruntime is not installed.
        RunFailed: The quantizer refused the file.
    """
    try:
        from onnxruntime import quantization
    except ImportError:
        raise MissingDependency(f"onnxruntime {INSTALL}") from None
    import onnx

    try:
        name = onnx.load(source).graph.input[0].name
    except Exception as error:  # protobuf's own kind
        raise RunFailed(
            f"ONNX Runtime's quantizer refused '{source.name}': {str(error).splitlines()[0]}"
        ) from error

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter(representative)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            row = next(self._rows, None)
            return None if row is None else {name: row[np.newaxis]}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        made = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                str(source),
                str(made),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                weight_type=quantization.QuantType.QInt8,
                # unsigned: what x86 multiplies with signed weights in one instruction
                activation_type=quantization.QuantType.QUInt8,
            )
        except Exception as error:
            raise RunFailed(
                f"ONNX Runtime's quantizer refused '{source.name}': {str(error).splitlines()[0]}"
            ) from error
        write_bytes(path, made.read_bytes())


def _check_opset(opset: int | None) -> None:
    if opset is None:
        return
    with _quiet():
        from tf2onnx import constants
    low, high = min(constants.OPSET_TO_IR_VERSION), max(constants.OPSET_TO_IR_VERSION)
    if not low <= opset <= high:
        raise InputError(f"opset must be in [{low}, {high}]. Received: {opset}.")


def _check(path: Path) -> None:
    """Checks a file and takes out what differs between two exports of one model."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    # tf2onnx numbers names by a counter of the process, and notes TensorFlow's own counter
    numbers: dict[str, str] = {}

    def renamed(name: str) -> str:
        return _NUMBER.sub(lambda m: numbers.setdefault(m.group(), f"__{len(numbers) + 1}"), name)

    for node in graph.node:
        node.name = renamed(node.name)
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.name = renamed(item.name)
    graph.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keeps tf2onnx's log, prints and warnings from the terminal; yields its errors."""
    problems: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                problems.append(record.getMessage())

    # tf2onnx makes a logger a module; all hang on this one
    logger, keep = logging.getLogger("tf2onnx"), Keep()
    propagate, level = logger.propagate, logger.level
    logger.addHandler(keep)
    logger.propagate = False
    disabled = logging.root.manager.disable
    # TensorFlow warns of traces, ONNX Runtime of preprocessing, both on loggers of their own
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), captured_stderr(), silenced_stdout():
            warnings.simplefilter("ignore")
            yield problems
    finally:
        logging.disable(disabled)
        logger.removeHandler(keep)
        logger.propagate = propagate
        logger.setLevel(level)


@contextmanager
def _plain_operations(model: keras.Model) -> Iterator[None]:
    """Lets a model use operations that tf2onnx knows, with the same results, while it is traced.

    Keras wraps grouped convolutions in a function compiled by XLA, which has gradients on a CPU
    but which tf2onnx does not know; and TensorFlow writes the exact GELU with Erfc.
    """
    import keras
    import tensorflow as tf

    grouped = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D))
        and layer.groups > 1
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
    ]
    for layer in grouped:
        layer.call = _grouped_call(layer)
    own = tf.nn.gelu

    def gelu(features: Any, approximate: bool = False, name: str | None = None) -> Any:
        if approximate:
            return own(features, approximate=True, name=name)
        return 0.5 * features * (1.0 + tf.math.erf(features / math.sqrt(2.0)))

    tf.nn.gelu = gelu
    try:
        yield
    finally:
        tf.nn.gelu = own
        for layer in grouped:
            del layer.call


def _grouped_call(layer: Any) -> Any:
    import tensorflow as tf

    def call(inputs: Any) -> Any:
        x = tf.nn.convolution(
            inputs,
            tf.convert_to_tensor(layer.kernel.value),
            strides=list(layer.strides),
            padding=layer.padding.upper(),
            dilations=list(layer.dilation_rate),
        )
        if layer.use_bias:
            x = x + tf.convert_to_tensor(layer.bias.value)
        return x if layer.activation is None else layer.activation(x)

    return call
