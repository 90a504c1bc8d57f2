"""Keras -> LiteRT: float32, float16, int8 by weights or in all, and sparse float32."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.errors import InputError, RunFailed
from compress.files import write_bytes
from compress.io import float32_model
from compress.quiet import captured_stderr

if TYPE_CHECKING:
    import keras


def export_litert(
    model: keras.Model,
    path: Path,
    kind: str = "float32",
    *,
    representative: npt.NDArray[np.float32] | None = None,
) -> None:
    """Writes a `.tflite` file for batch size 1, in one atomic step.

    Args:
        model: A functional model or a built Sequential with one input.
        path: Ends in `.tflite`.
        kind: "float32"; "float16": weights as half floats, computed in float32 on CPUs;
            "dynamic": weights in int8, activations quantized as they come; "int8": weights
            (per channel), activations, input and output in int8; "sparse": float32, weights
            with enough zeros without them: a smaller file, computed as fast as before (LiteRT
            unpacks it on x86).
        representative: Model inputs (n, ...) that calibrate int8; required for it.

    Raises:
        InputError: int8 without representative inputs, or an input size is unknown.
        RunFailed: The converter refused the model; the message carries its reason.
    """
    import keras
    import tensorflow as tf

    calibration = [] if representative is None else list(representative)
    if kind == "int8" and not calibration:
        raise InputError("int8 export must have representative inputs. Received: none.")
    shape = tuple(model.inputs[0].shape[1:])
    if any(size is None for size in shape):
        raise InputError(
            f"Model '{model.name}' must have a known input size to be exported. Received: {shape}."
        )
    signature = [keras.InputSpec(shape=(1, *shape), dtype="float32")]
    with tempfile.TemporaryDirectory() as folder, captured_stderr() as written:
        try:
            float32_model(model).export(
                folder, format="tf_saved_model", verbose=False, input_signature=signature
            )
            converter: Any = tf.lite.TFLiteConverter.from_saved_model(folder)
            if kind in ("float16", "dynamic"):
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if kind == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([x[np.newaxis]] for x in calibration)
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = tf.int8
                converter.inference_output_type = tf.int8
            if kind == "sparse":
                converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
            content = converter.convert()
        except Exception as error:  # the converter raises bare Exceptions from C++
            lines = (str(error).strip() or written().strip() or repr(error)).splitlines()
            raise RunFailed(
                f"LiteRT's converter refused model '{model.name}': {lines[0]}"
            ) from error
    write_bytes(path, content)
