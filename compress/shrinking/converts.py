"""What writes files of nets on the way to a goal, by their format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compress.core.errors import RunFailed
from compress.exporting import litert, onnx
from compress.exporting.conversions import ConversionFailed
from compress.exporting.side_by_side import EXAMPLES, litert_files, onnx_files
from compress.exporting.traced import Traced
from compress.measure.latency_table.measuring import Convert
from compress.plan.output import ONNX_FORMATS

if TYPE_CHECKING:
    import keras


def convert_for(format: str) -> Convert:
    """Returns what writes files of models for timing, in a format; see `Convert`."""
    return onnx_files if format in ONNX_FORMATS else litert_files


def file_for(model: keras.Model, format: str, folder: Path, *, shipped: bool) -> Path:
    """Writes the file of a net.

    Args:
        model: Of any weights; its sizes are known.
        format: Of the file; whole numbers are calibrated on random inputs.
        folder: Where it goes.
        shipped: As it is shipped, byte for byte as large; else as it is timed, with fewer names.

    Raises:
        RunFailed: The net could not be converted.
    """
    if not shipped:
        (file,) = convert_for(format)([model], folder, format)
        if isinstance(file, str):
            raise RunFailed(f"A thinner net could not be converted to {format}: {file}")
        return file
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(size=(EXAMPLES, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in model.inputs
    ]
    try:
        with Traced(model) as traced:
            if format in ONNX_FORMATS:
                kind = "int8" if format == "onnx_int8" else "float32"
                return onnx.file_for(traced, kind, folder / "shipped", inputs)
            return litert.file_for(traced, format, folder / "shipped", inputs)
    except ConversionFailed as error:
        reason = error.reason
    except RunFailed as error:
        reason = str(error)
    raise RunFailed(f"A thinner net could not be converted to {format}: {reason}")
