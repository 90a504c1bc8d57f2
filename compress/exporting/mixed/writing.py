"""Writes files by LiteRT Quantizer: of mixed precision, and of weights of four bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compress.core.atomic_files import write_bytes
from compress.core.columns import taken
from compress.core.errors import InputError, RunFailed
from compress.core.requirements import FORMATS, require_packages
from compress.exporting.conversions import ConversionFailed, convert
from compress.exporting.litert import plain_file
from compress.exporting.mixed.candidates import Files
from compress.exporting.mixed.four_bits import four_bit_kernels, rounded_model
from compress.exporting.mixed.levels import INT4_WEIGHTS
from compress.exporting.mixed.report import LayerPrecision, layers_of, told
from compress.exporting.mixed.search import Search
from compress.exporting.mixed.units import file_graph, kernels_of, units_of
from compress.exporting.refusals import explained
from compress.exporting.runnable import runnable
from compress.exporting.traced import Traced
from compress.measure.divergence import divergence
from compress.measure.quality import outputs_of
from compress.measure.runtimes import session_for
from compress.plan.output import INT4, MIXED, ExportOptions
from compress.reconstruction import FEWEST

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
    source, nearest = plain_file(traced), traced.place / "int4_nearest.tflite"
    judging, rest = ([taken(part, rows) for part in inputs]
                     for rows in (slice(SENSED), slice(SENSED, None)))  # fmt: skip
    with explained(ENGINE, INT4, traced.model):
        convert("mixed", source=str(source), path=str(nearest), ranges=None, recipe=INT4_WEIGHTS)
        write_bytes(path, nearest.read_bytes())
        kernels = four_bit_kernels(nearest, traced.model)
        if not kernels or len(rest[0]) < FEWEST:
            why = "too few examples calibrate" if kernels else "none that is solved for"
            return (f"{INT4}: kernels of four bits have the nearest values ({why})",)
        model, report = rounded_model(traced.model, rest, kernels)
        with Traced(model) as again:
            rounded = again.place / "int4_rounded.tflite"
            plain = plain_file(again)
            convert("mixed", source=str(plain), path=str(rounded), ranges=None,
                    recipe=INT4_WEIGHTS)  # fmt: skip
            found = rounded.read_bytes()
            wanted = outputs_of(session_for(source), judging)
            before, after = (_moved(file, judging, wanted) for file in (nearest, rounded))
    told = (
        f"{INT4}: {len(kernels)} kernels of four bits are rounded so that their layers' outputs "
        f"stay (on {report.examples} training examples); the file's outputs move by "
        f"{after:.3g} instead of {before:.3g} (divergence, on {len(judging[0])} others)"
    )
    if after >= before:
        return (f"{told}: that is no better, so weights have the nearest values",)
    write_bytes(path, found)
    return (told,)


def _moved(
    path: Path, inputs: Sequence[npt.NDArray[Any]], wanted: Sequence[npt.NDArray[Any]]
) -> float:
    """Returns how far a file's outputs are from those wanted.

    Raises:
        ConversionFailed: LiteRT cannot run it.
    """
    try:
        session = runnable(path, inputs)
    except InputError as error:
        raise ConversionFailed("made no file that runs of", str(error)) from None
    return divergence(wanted, outputs_of(session, inputs))
