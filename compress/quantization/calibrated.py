"""Models that round their values, calibrated for a file and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Unlabelled
from compress.model.ports import input_names
from compress.plan.quantize import QuantizeOptions
from compress.quantization import report
from compress.quantization.quantizing import Quantizing

if TYPE_CHECKING:
    import keras


def calibrate_for_file(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]]
) -> tuple[keras.Model, tuple[str, ...]]:
    """Return what `quantize` without training makes of a model, and notes on what stays in floats.

    Args:
        model: Functional or Sequential, of known sizes; not changed.
        inputs: Examples (n, ...) that set the ranges, an array an input in the model's order.

    Returns:
        The model whose int8-qat file is to be written, and the notes.

    Raises:
        InputError: Nothing of it is computed in integers, or see `quantize`.
    """
    x = dict(zip(input_names(model), inputs, strict=True)) if len(inputs) > 1 else inputs[0]
    options = QuantizeOptions(epochs=0, examples=len(inputs[0]))
    made = Quantizing(model, Unlabelled.of("calibration examples", x), options)
    reasons = report.reasons(made.twin.placed)
    if all(call.reason for call in made.twin.placed):
        raise InputError(
            f"Model '{model.name}' must have a layer that is computed in integers to become an "
            f"int8 file. Received: {'; '.join(reasons)}. Take dynamic or float16."
        )
    return made.twin.served, reasons
