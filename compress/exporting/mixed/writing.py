"""Files by LiteRT Quantizer: of mixed precision, and with weights of four bits.

Kernels of four bits are rounded so that their layers' outputs stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import taken
from compress.core.atomic_files import replacing, write_bytes
from compress.core.errors import InputError, RunFailed
from compress.core.interpreter import FORMATS, require_packages
from compress.exporting.answering import runnable
from compress.exporting.conversions import ConversionFailed, convert, explained
from compress.exporting.litert import plain_file
from compress.exporting.mixed.search import AsGood, Files, Found, Search, observe
from compress.exporting.mixed.units import (
    INT4_WEIGHTS,
    WHOLE,
    Unit,
    file_graph,
    kernel_of,
    kernels_of,
    owner_of,
    recipe_of,
    scope_of,
    units_of,
)
from compress.exporting.traced import Traced
from compress.measure.quality import divergence, outputs_of
from compress.measure.runtimes import session_for
from compress.model.copies import copy_model
from compress.model.internals import named_layers, variable_paths
from compress.plan.output import INT4, LEVELS, MIXED, ExportOptions
from compress.reconstruction import repair
from compress.reconstruction.kinds import has_parts

if TYPE_CHECKING:
    import keras

    from compress.reconstruction import RepairReport

ENGINE = "LiteRT Quantizer"
SENSED = 64
"""Examples on which losses are measured."""
SHOWN = 5


def write_mixed(
    traced: Traced,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    options: ExportOptions,
    on_progress: Callable[[float], None],
    as_good: AsGood | None = None,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Write a `.tflite` file whose layers have precisions of their own, in one atomic step.

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
    source, units = plain_file(traced), _find_units(traced)
    if not units:
        raise RunFailed(f"Model '{traced.model.name}' has no operation that could be {MIXED}.")
    folder = traced.place / "mixed"
    folder.mkdir(exist_ok=True)
    with explained(ENGINE, MIXED, traced.model):
        files = Files(source, folder, inputs, traced.ports, units, SENSED)
        found = Search(files, options, on_progress, as_good).found()
        write_bytes(path, found.path.read_bytes())

        def again(other: Traced, path: Path) -> None:
            # names in the file are others where other constants are folded
            source, units = plain_file(other), _find_units(other)
            ranges = other.place / "ranges.json"
            levels = dict(zip(units, found.levels.values(), strict=True))
            observe(source, ranges, inputs, other.ports, units)
            convert(
                "mixed", source=str(source), path=str(path), ranges=str(ranges),
                recipe=recipe_of(levels),
            )  # fmt: skip

        rounded = round_together(traced, path, inputs, again)
    layers = _layers_of(found)
    notes = _describe_layers(layers, found, min(SENSED, len(inputs[0])))
    return layers, (*notes, f"{MIXED}: {rounded}") if rounded else notes


def write_int4(traced: Traced, path: Path, inputs: Sequence[npt.NDArray[Any]]) -> tuple[str, ...]:
    """Write a `.tflite` file of float32 activations whose kernels have four bits a weight.

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
            _int4(traced, temporary)
            runnable(temporary, inputs)
        told = round_together(traced, path, inputs, _int4)
    return (f"{INT4}: {told or 'no kernel has four bits'}",)


@dataclass(frozen=True)
class LayerPrecision:
    """Precision of one layer in a file.

    Attributes:
        layer: Its path in the model.
        precision: "int4" (weights), "int8", "dynamic4" and "dynamic" (the same weights, what
            passes is rounded as it comes), "int16" (what passes; weights have 8 bits), "float16"
            (weights, computed in float32) or "float32".
        alone: By precision: how far the outputs move where this layer alone has it; see
            `compress.measure.quality`.
        floats: Kinds of its operations that are computed in floats although its precision is one
            of whole numbers: LiteRT Quantizer has none for them, or CPUs are slower with them.
    """

    layer: str
    precision: str
    alone: dict[str, float]
    floats: tuple[str, ...] = ()


def _layers_of(found: Found) -> tuple[LayerPrecision, ...]:
    """Return the precision of each layer in the chosen file, in the model's order."""
    floats = {
        scope_of(item): item.kind.lower()
        for item in file_graph(found.path).operators
        if not any(tensor.quantized for tensor in item.outputs)
    }
    layers = []
    for unit, level in found.levels.items():
        kinds = {floats[scope] for scope in unit.scopes if scope in floats and level in WHOLE}
        alone = dict(found.alone[unit])
        layers.append(LayerPrecision(unit.name, level, alone, tuple(sorted(kinds))))
    return tuple(layers)


def _describe_layers(
    layers: Sequence[LayerPrecision], found: Found, examples: int
) -> tuple[str, ...]:
    """Return lines on the precisions of layers, with reasons.

    Args:
        layers: Of the file.
        found: The file.
        examples: On which losses were measured.
    """
    counts = Counter(item.precision for item in layers)
    each = ", ".join(f"{counts[level]} in {level}" for level in LEVELS if counts[level])
    left = f"{found.loss / found.most:.0%}" if found.most else "none"
    lowest = found.lowest
    lines = [
        f"{MIXED}: of {len(layers)} layers {each}; {left} is left of what the outputs lose where "
        f"all are {lowest} (measured on {examples} training examples)"
    ]
    raised = [item for item in layers if item.precision != lowest]
    raised.sort(key=lambda item: -item.alone.get(lowest, 0.0))
    total = sum(item.alone.get(lowest, 0.0) for item in layers)
    for item in raised[:SHOWN]:
        share = item.alone.get(lowest, 0.0) / total if total else 0.0
        lines.append(
            f"{MIXED}: '{item.layer}' is {item.precision}: {lowest} there makes {share:.0%} of "
            "what layers lose one by one"
        )
    if len(raised) > SHOWN:
        lines.append(f"{MIXED}: {len(raised) - SHOWN} more layers are not {lowest}")
    kinds = sorted({kind for item in layers for kind in item.floats})
    if kinds:
        lines.append(
            f"{MIXED}: {', '.join(kinds)} stay in floats: LiteRT Quantizer has no whole numbers "
            "for them, or CPUs are slower with them (products of activations, statistics)"
        )
    return (*lines, *found.notes)


def round_together(
    traced: Traced,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    make: Callable[[Traced, Path], None],
) -> str:
    """Make a file anew with four-bit kernels rounded so that their layers' outputs stay.

    It takes the place of the file where its outputs are nearer to those of the float32 file.

    Args:
        traced: The model.
        path: A file that was made of it and runs; its weights have the nearest values.
        inputs: Examples (n, ...), an array an input: the first `SENSED` judge, the others are
            rounded on.
        make: Makes the same file of another model of the same layers.

    Returns:
        What was done, or why not; nothing where no kernel has four bits.
    """
    kernels = four_bit_kernels(path, traced.model)
    if not kernels:
        return ""
    judging, rest = ([taken(part, rows) for part in inputs]
                     for rows in (slice(SENSED), slice(SENSED, None)))  # fmt: skip
    wanted = outputs_of(session_for(plain_file(traced)), judging)
    before = divergence(wanted, outputs_of(session_for(path), judging))
    try:
        model, report = rounded_model(traced.model, rest, kernels)
        with Traced(model) as again:
            file = again.place / "rounded.tflite"
            make(again, file)
            after = divergence(wanted, outputs_of(runnable(file, judging), judging))
            if after < before:
                write_bytes(path, file.read_bytes())
    except (InputError, ConversionFailed) as error:  # the file that is there is as good as any
        return f"kernels of four bits have the nearest values ({error})"
    told = (
        f"{len(kernels)} kernels of four bits are rounded so that their layers' outputs stay "
        f"(on {report.examples} training examples); the file's outputs move by {after:.3g} "
        f"instead of {before:.3g} (divergence, on {len(judging[0])} others)"
    )
    kept = ": that is no better, so weights have the nearest values"
    return told if after < before else f"{told}{kept}"


def four_bit_kernels(path: Path, model: keras.Model) -> dict[str, int]:
    """Return the kernels of a model that a file holds in four bits, with their largest integer.

    Only those that can be solved for; others keep the nearest values.

    Args:
        path: A `.tflite` file of the model.
        model: What it was made of.
    """
    layers, known = dict(named_layers(model)), kernels_of(model)
    paths = {id(variable): path for path, variable in variable_paths(model)}
    found: dict[str, int] = {}
    for operator in file_graph(path).operators:
        kernel = kernel_of(operator)
        layer = layers.get(owner_of(operator, known))
        if kernel is None or kernel.dtype != "int4" or layer is None or not has_parts(layer):
            continue
        for weight in layer.weights:
            if len(weight.shape) > 1 and int(np.prod(weight.shape)) == kernel.elements:
                found[paths[id(weight)]] = 7  # of four bits, as many on both sides of zero
    return found


def rounded_model(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]], kernels: Mapping[str, int]
) -> tuple[keras.Model, RepairReport]:
    """Return a copy of a model whose kernels lie on grids; zeros stay zeros.

    Args:
        model: Stays as it is.
        inputs: Examples (n, ...), an array an input.
        kernels: Path of a kernel -> the largest whole number of its grid.

    Raises:
        InputError: Fewer than 20 examples, or no layer that can be solved for.
    """
    made = copy_model(model)
    full = {
        path: np.asarray(variable.numpy()) != 0
        for path, variable in variable_paths(made) if path in kernels
    }  # fmt: skip
    masks = {path: mask for path, mask in full.items() if mask.any() and not mask.all()}
    return made, repair(made, model, list(inputs), grids=kernels, masks=masks)


def _int4(traced: Traced, path: Path) -> None:
    source = str(plain_file(traced))
    convert("mixed", source=source, path=str(path), ranges=None, recipe=INT4_WEIGHTS)


def _find_units(traced: Traced) -> tuple[Unit, ...]:
    return units_of(file_graph(plain_file(traced)), kernels_of(traced.model))
