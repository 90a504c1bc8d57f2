"""Keras to LiteRT: float32, float16, int8 (weights alone, or all), and sparse float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import replacing
from compress.core.errors import InputError, RunFailed
from compress.exporting.conversions import convert, explained
from compress.exporting.recurrent import FUSED
from compress.exporting.traced import (
    SERVED,
    WITH_LSTMS,
    Convertible,
    Examples,
    Traced,
    read_examples,
)
from compress.plan.output import INT16, QAT
from compress.plugins import CALIBRATORS

if TYPE_CHECKING:
    import keras

CONVERTER = "LiteRT's converter"
CALIBRATED = ("int8", INT16)
"""What the converter takes ranges of examples for."""


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
        path: Ends in `.tflite`.
        kind: "float32"; "float16": weights as half floats, computed in float32 on CPUs;
            "dynamic": weights in int8, activations quantized as they come; "int8": weights
            (per channel), activations, input and output in int8; "int16x8": the same with 16 bits
            for whatever passes; "int8-qat": int8 by the
            ranges of a model that rounds its values itself (`quantize`); "sparse": float32, weights
            with enough zeros without them: a smaller file, computed as fast as before (LiteRT
            unpacks it on x86).
        representative: Model inputs (n, ...), one array an input, that calibrate int8 and
            int16x8; required for them.

    Raises:
        InputError: int8 without representative inputs, or an input size is unknown.
        RunFailed: The converter refused the model; the message carries its reason.
    """
    with Traced(model) as traced:
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
        path, kind, representative: See there.
        plain: Whether LSTMs stay loops, for whoever reads the file and knows no others.
    """
    calibration = None
    if kind in CALIBRATED:
        if representative is None or not len(representative):
            raise InputError(f"{kind} export must have representative inputs. Received: none.")
        calibration = str(traced.given(representative))
    saved = traced.saved(WITH_LSTMS if kind in FUSED and not plain else SERVED)
    with replacing(path) as temporary, explained(CONVERTER, kind, traced.model):
        convert(
            "litert",
            saved=str(saved),
            path=str(temporary),
            kind=kind,
            calibration=calibration,
        )


def write_int8(traced: Convertible, path: Path, representative: Examples) -> tuple[str, ...]:
    """Write an int8 file, by the converter's calibration or else by that of `quantize`.

    The converter crashes on loops, and so on most recurrent layers: ranges come from the rules of
    `compress.quantization` then, as in an int8-qat file without training.

    Args:
        traced: The model.
        path: Ends in `.tflite`.
        representative: Model inputs (n, ...), one array an input.

    Returns:
        Notes: none where the converter made the file, else that it did not, and what is in floats.

    Raises:
        RunFailed: Neither way makes a file; the message says why.
    """
    try:
        write_litert(traced, path, "int8", representative=representative)
        return ()
    except RunFailed as error:
        if isinstance(traced.model, str):
            raise  # of a SavedModel nothing tells the layers
        try:
            notes = calibrated_file(traced.model, path, representative)
        except (InputError, RunFailed) as other:
            raise RunFailed(
                f"{error} Ranges of paretune's own make no file either: {other}"
            ) from error
        return (
            f"int8: {error}; the file was calibrated by paretune's own rules instead, as int8-qat "
            "without training",
            *(f"int8: {note}" for note in notes),
        )


def calibrated_file(model: keras.Model, path: Path, representative: Examples) -> tuple[str, ...]:
    """Write an int8 file of the ranges that `quantize` calibrates; see `write_int8`.

    Returns:
        Notes on what stays in floats.

    Raises:
        InputError: Nothing of the model is computed in integers.
        RunFailed: The converter does not take it.
    """
    given = [representative] if isinstance(representative, np.ndarray) else list(representative)
    rounding, notes = CALIBRATORS["int8"](model, given)
    with Traced(rounding) as traced:
        write_litert(traced, path, QAT)
    return tuple(notes)


def file_for(traced: Convertible, kind: str, stem: Path, inputs: Examples) -> Path:
    """Write the file for a runtime of `.tflite` files; see `Runtime.maker`."""
    path = Path(f"{stem}.tflite")
    if kind == "int8":
        write_int8(traced, path, inputs)
    else:
        write_litert(traced, path, kind, representative=inputs)
    return path


def plain_file(traced: Convertible) -> Path:
    """Return the float32 file of a traced model, written once; other formats start from it."""
    path = traced.place / "float32.tflite"
    if not path.exists():
        write_litert(traced, path, plain=True)
    return path


def convert_litert(saved: str, path: str, kind: str, calibration: str | None) -> None:
    """Convert a SavedModel, in the converter's process.

    Args:
        saved: Its folder.
        path: The file to write.
        kind: See `export_litert`.
        calibration: A file of model inputs, see `compress.exporting.traced`, for int8.
    """
    import tensorflow as tf

    from compress.exporting.tflite_editing import with_byte_inputs, with_whole_lstms

    converter: Any = tf.lite.TFLiteConverter.from_saved_model(saved)
    examples: list[Any] = [] if calibration is None else read_examples(calibration)
    if examples and len(examples[0]) == 1:
        # by name TensorFlow goes another way, and warns of it
        examples = [list(one.values()) for one in examples]
    content = with_byte_inputs(configured(converter, kind, examples).convert())
    Path(path).write_bytes(with_whole_lstms(content) if kind == QAT else content)


def configured(converter: Any, kind: str, examples: Sequence[Any]) -> Any:
    """Return a converter of TensorFlow's with the settings of a format.

    Args:
        converter: Of any source.
        kind: See `export_litert`.
        examples: Inputs that calibrate int8, each a list of arrays, or arrays by name where a
            signature names them.
    """
    import tensorflow as tf

    sets = tf.lite.OpsSet
    if kind == "sparse":
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in CALIBRATED:
        converter.representative_dataset = lambda: examples
    if kind == "int8":
        converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8]
    if kind == INT16:
        # what has no kernel of these types stays in floats
        converter.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8, sets.TFLITE_BUILTINS,
        ]  # fmt: skip
    if kind in ("int8", QAT):  # of QAT the ranges stand in the graph: nothing is calibrated
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter
