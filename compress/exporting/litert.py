"""Keras to LiteRT: float32, float16, int8 (weights only or full), int16x8 and sparse float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.core.atomic_files import replace_file
from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras, tf
from compress.exporting.conversions import convert, explain_failures
from compress.exporting.recurrent import FUSED
from compress.exporting.tracing import (
    SERVED,
    WITH_LSTMS,
    Convertible,
    Examples,
    TracedModel,
    read_examples,
)
from compress.plan.output import INT16, QAT
from compress.plugins import CALIBRATORS

CONVERTER = "LiteRT's converter"
CALIBRATED_FORMATS = ("int8", INT16)
"""Formats for which the converter calibrates ranges on examples."""


def export_litert(
    model: keras.Model,
    path: Path,
    kind: str = "float32",
    *,
    representative: Examples | None = None,
) -> None:
    """Write a `.tflite` file for batch size 1, in one atomic step.

    Args:
        model: A functional model or a built Sequential.
        path: Path of the file, ending in `.tflite`.
        kind: "float32"; "float16": half-precision weights, computed in float32 on CPUs; "dynamic":
            int8 weights, activations quantized dynamically; "int8": weights (per channel),
            activations, inputs and outputs in int8; "int16x8": int8 weights and 16-bit activations,
            inputs and outputs in float; "int8-qat": int8 with the ranges of a fake-quantized model
            (`quantize`); "sparse": float32, zeros of sparse weights not stored: a smaller file that
            is not faster (LiteRT unpacks it on x86).
        representative: Calibration examples as model inputs (n, ...), one array per input;
            required for int8 and int16x8, ignored by other kinds.

    Raises:
        InputError: int8 or int16x8 without calibration examples, or an input size is unknown.
        RunFailed: The converter refused the model; the message has its reason.
    """
    with TracedModel(model) as traced:
        write_litert(traced, path, kind, representative=representative)


def write_litert(
    traced: Convertible,
    path: Path,
    kind: str = "float32",
    *,
    representative: Examples | None = None,
    plain: bool = False,
) -> None:
    """Write a `.tflite` file of a traced model; see `export_litert`.

    Args:
        traced: The model.
        path, kind, representative: See `export_litert`.
        plain: Whether to keep LSTMs as loops, for readers without LiteRT's fused LSTM.

    Raises:
        InputError: int8 or int16x8 without calibration examples.
        RunFailed: The model cannot be traced, or the converter refused it, crashed or hung.
    """
    calibration = None
    if kind in CALIBRATED_FORMATS:
        if representative is None or not len(representative):
            raise InputError(f"{kind} export must have representative inputs. Received: none.")
        calibration = str(traced.save_examples(representative))
    saved = traced.ensure_saved(WITH_LSTMS if kind in FUSED and not plain else SERVED)
    with replace_file(path) as temporary, explain_failures(CONVERTER, kind, traced.model):
        convert(
            "litert",
            saved=str(saved),
            path=str(temporary),
            kind=kind,
            calibration=calibration,
        )


def write_int8(traced: Convertible, path: Path, representative: Examples) -> tuple[str, ...]:
    """Write an int8 file, calibrated by the converter or, if that fails, by `quantize`.

    The converter crashes on loops and therefore on most recurrent layers. Ranges then come from the
    rules of `compress.quantization`, as in an int8-qat file without training.

    Args:
        traced: The model.
        path: Path of the file, ending in `.tflite`.
        representative: Calibration examples as model inputs (n, ...), one array per input.

    Returns:
        Notes: none if the converter calibrated the file, else its reason and the float operations.

    Raises:
        RunFailed: Neither calibration gives a file; the message says why.
    """
    try:
        write_litert(traced, path, "int8", representative=representative)
        return ()
    except RunFailed as error:
        if isinstance(traced.model, str):
            raise  # the layers of a SavedModel are unknown
        try:
            notes = write_calibrated(traced.model, path, representative)
        except (InputError, RunFailed) as calibration_error:
            raise RunFailed(
                f"{error} Ranges of paretune's own make no file either: {calibration_error}"
            ) from error
        return (
            f"int8: {error}; the file was calibrated by paretune's own rules instead, as int8-qat "
            "without training",
            *(f"int8: {note}" for note in notes),
        )


def write_calibrated(model: keras.Model, path: Path, representative: Examples) -> tuple[str, ...]:
    """Write an int8 file with the ranges that `quantize` calibrates; see `write_int8`.

    Args:
        model: The original model.
        path: Path of the file, ending in `.tflite`.
        representative: Calibration examples as model inputs (n, ...), one array per input.

    Returns:
        Notes on operations that stay in float.

    Raises:
        InputError: No part of the model can be computed in integers.
        RunFailed: The converter refused the model.
    """
    quantized, notes = CALIBRATORS["int8"](model, representative)
    with TracedModel(quantized) as traced:
        write_litert(traced, path, QAT)
    return tuple(notes)


def write_for_runtime(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write a model file for a runtime of `.tflite` files; see `Runtime.maker`.

    Args:
        traced: The model.
        kind: See `export_litert`.
        stem: Path of the file without its suffix.
        inputs: Calibration examples (n, ...), one array per input.

    Raises:
        RunFailed: See `write_litert`.
    """
    path = Path(f"{stem}.tflite")
    if kind == "int8":
        write_int8(traced, path, inputs)
    else:
        write_litert(traced, path, kind, representative=inputs)
    return path


def ensure_float32_file(traced: Convertible) -> Path:
    """Return the float32 file of a traced model, written once; other formats are made from it.

    Args:
        traced: The model.

    Raises:
        RunFailed: See `write_litert`.
    """
    path = traced.directory / "float32.tflite"
    if not path.exists():
        write_litert(traced, path, plain=True)
    return path


def convert_litert(saved: str, path: str, kind: str, calibration: str | None) -> None:
    """Convert a SavedModel, in the converter's process.

    Args:
        saved: Folder of the SavedModel.
        path: The file to write.
        kind: See `export_litert`.
        calibration: File of calibration examples, see `Convertible.save_examples`;
            None: no calibration.
    """
    from compress.exporting.tflite_editing import quantize_byte_inputs, quantize_lstms

    converter: Any = tf.lite.TFLiteConverter.from_saved_model(saved)
    examples: list[Any] = [] if calibration is None else read_examples(calibration)
    if examples and len(examples[0]) == 1:
        # examples by name take another code path in TensorFlow, which logs a warning
        examples = [list(example.values()) for example in examples]
    content = quantize_byte_inputs(configure_converter(converter, kind, examples).convert())
    Path(path).write_bytes(quantize_lstms(content) if kind == QAT else content)


def configure_converter(converter: Any, kind: str, examples: Sequence[Any]) -> Any:
    """Return a TensorFlow converter with the settings of a format.

    Args:
        converter: A converter of any source.
        kind: See `export_litert`.
        examples: Calibration examples for int8 and int16x8, each a list of arrays, or arrays by
            input name if the model has a signature.
    """
    sets = tf.lite.OpsSet
    if kind == "sparse":
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in CALIBRATED_FORMATS:
        converter.representative_dataset = lambda: examples
    if kind == "int8":
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8]
    if kind == INT16:
        # operations without a kernel of these types stay in float
        converter.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, sets.TFLITE_BUILTINS,
        ]  # fmt: skip
    if kind in ("int8", QAT):  # QAT needs no calibration: its ranges are in the graph
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter
