"""Writes files by LiteRT Quantizer: of mixed precision, and of weights of four bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compress.core.atomic_files import replacing, write_bytes
from compress.core.errors import RunFailed
from compress.core.requirements import FORMATS, require_packages
from compress.exporting.conversions import convert
from compress.exporting.litert import plain_file
from compress.exporting.mixed.candidates import Files
from compress.exporting.mixed.levels import INT4_WEIGHTS
from compress.exporting.mixed.report import LayerPrecision, layers_of, told
from compress.exporting.mixed.search import Search
from compress.exporting.mixed.units import file_graph, kernels_of, units_of
from compress.exporting.refusals import explained
from compress.exporting.traced import Traced
from compress.plan.output import INT4, MIXED, ExportOptions

ENGINE = "LiteRT Quantizer"
SENSED = 64
"""Examples on which losses are measured."""


def write_mixed(
    traced: Traced,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    options: ExportOptions,
    on_progress: Callable[[float], None],
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Writes a `.tflite` file whose layers have precisions of their own, in one atomic step.

    Each layer is tried alone at each precision, the others in float32; what layers lose and cost
    (bytes, and time by multiply-accumulates) is taken to add up. On the way from the cheapest
    choice to the dearest files are made and measured, and the first is taken that loses little
    enough, or the last within the limits.

    Args:
        traced: The model.
        path: Ends in `.tflite`.
        inputs: Examples (n, ...), an array an input; they set the ranges, and the first `SENSED`
            measure the losses. No labels are needed.
        options: `mixed_levels`, `mixed_loss`, `mixed_size`, `mixed_latency`.
        on_progress: Called with the share that is done.

    Returns:
        The precision of each layer, and what is worth a note.

    Raises:
        MissingDependency: LiteRT Quantizer is not installed.
        RunFailed: The model cannot be converted, or no file is within the limits.
    """
    require_packages(FORMATS[MIXED], f"format {MIXED}")
    source = plain_file(traced)
    units = units_of(file_graph(source), kernels_of(traced.model))
    if not units:
        raise RunFailed(f"Model '{traced.model.name}' has no operation that could be {MIXED}.")
    folder = traced.place / "mixed"
    folder.mkdir(exist_ok=True)
    with explained(ENGINE, MIXED, traced.model):
        files = Files(source, folder, inputs, traced.ports, units, SENSED)
        found = Search(files, options, on_progress).found()
    write_bytes(path, found.path.read_bytes())
    layers = layers_of(found)
    return layers, told(layers, found, min(SENSED, len(inputs[0])))


def write_int4(traced: Traced, path: Path) -> None:
    """Writes a `.tflite` file of float32 activations whose kernels have four bits a weight.

    One scale a channel; kernels that no runtime reads in four bits have eight.

    Args:
        traced: The model.
        path: Ends in `.tflite`.

    Raises:
        MissingDependency: LiteRT Quantizer is not installed.
        RunFailed: The model cannot be converted.
    """
    require_packages(FORMATS[INT4], f"format {INT4}")
    source = plain_file(traced)
    with replacing(path) as temporary, explained(ENGINE, INT4, traced.model):
        convert("mixed", source=str(source), path=str(temporary), ranges=None, recipe=INT4_WEIGHTS)
