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
from compress.exporting.mixed.candidates import Files, observe, running
from compress.exporting.mixed.four_bits import round_together
from compress.exporting.mixed.levels import INT4_WEIGHTS, recipe_of
from compress.exporting.mixed.report import LayerPrecision, layers_of, told
from compress.exporting.mixed.search import AsGood, Search
from compress.exporting.mixed.units import Unit, file_graph, kernels_of, units_of
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
    as_good: AsGood | None = None,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Writes a `.tflite` file whose layers have precisions of their own, in one atomic step.

    Each layer is tried alone at each precision, the others in float32; what layers lose and cost
    (bytes, and time by multiply-accumulates) is taken to add up. On the way from the cheapest
    choice to the dearest files are made and measured, and the first is taken that loses little
    enough, or the last within the limits. Where kernels have four bits in it they are rounded
    together in the end, see `write_int4`.

    Args:
        traced: The model.
        path: Ends in `.tflite`.
        inputs: Examples (n, ...), an array an input; they set the ranges, and the first `SENSED`
            measure the losses. No labels are needed.
        options: `mixed_levels`, `mixed_loss`, `mixed_size`, `mixed_latency`.
        on_progress: Called with the share that is done.
        as_good: See `Search`.

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
        found = Search(files, options, on_progress, as_good).found()
        write_bytes(path, found.path.read_bytes())

        def again(other: Traced, units: Sequence[Unit], path: Path) -> None:
            # names in the file are others where other constants are folded
            levels = dict(zip(units, found.levels.values(), strict=True))
            ranges = other.place / "ranges.json"
            observe(plain_file(other), ranges, inputs, other.ports, units)
            convert(
                "mixed", source=str(plain_file(other)), path=str(path), ranges=str(ranges),
                recipe=recipe_of(levels),
            )  # fmt: skip

        rounded = round_together(traced, path, inputs, again, SENSED)
    layers = layers_of(found)
    notes = told(layers, found, min(SENSED, len(inputs[0])))
    return layers, (*notes, f"{MIXED}: {rounded}") if rounded else notes


def write_int4(traced: Traced, path: Path, inputs: Sequence[npt.NDArray[Any]]) -> tuple[str, ...]:
    """Writes a `.tflite` file of float32 activations whose kernels have four bits a weight.

    One scale a channel; kernels that no runtime reads in four bits have eight. Weights are
    rounded so that their layers' outputs stay (see `compress.reconstruction.rounding`) where the
    file's outputs are nearer to the float32 file's then.

    Args:
        traced: The model.
        path: Ends in `.tflite`.
        inputs: Examples (n, ...), an array an input; the first `SENSED` judge which of both files
            it is, the others are rounded on. No labels are needed.

    Returns:
        What is worth a note.

    Raises:
        MissingDependency: LiteRT Quantizer is not installed.
        RunFailed: The model cannot be converted.
    """
    require_packages(FORMATS[INT4], f"format {INT4}")
    with explained(ENGINE, INT4, traced.model):
        with replacing(path) as temporary:
            _int4(traced, (), temporary)
            running(temporary, inputs)
        told = round_together(traced, path, inputs, _int4, SENSED)
    return (f"{INT4}: {told or 'no kernel has four bits'}",)


def _int4(traced: Traced, _: Sequence[Unit], path: Path) -> None:
    source = str(plain_file(traced))
    convert("mixed", source=source, path=str(path), ranges=None, recipe=INT4_WEIGHTS)
