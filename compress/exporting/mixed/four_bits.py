"""Kernels of four bits, rounded so that their layers' outputs stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import write_bytes
from compress.core.columns import taken
from compress.core.errors import InputError
from compress.exporting.conversions import ConversionFailed
from compress.exporting.litert import plain_file
from compress.exporting.mixed.candidates import running
from compress.exporting.mixed.units import (
    Unit,
    file_graph,
    kernel_of,
    kernels_of,
    owner_of,
    units_of,
)
from compress.exporting.traced import Traced
from compress.measure.quality import divergence, outputs_of
from compress.measure.runtimes import session_for
from compress.model.copies import copy_model
from compress.model.walk import named_layers, variable_paths
from compress.reconstruction import repair
from compress.reconstruction.kinds import has_parts

if TYPE_CHECKING:
    import keras

    from compress.reconstruction import RepairReport

Make = Callable[[Traced, Sequence[Unit], Path], None]
"""Writes the file of a model whose float32 file has these units."""
LARGEST = 7
"""Whole number of four bits, as many on both sides of zero."""


def four_bit_kernels(path: Path, model: keras.Model) -> dict[str, int]:
    """Returns the kernels of a model that a file holds in four bits, and their largest number.

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
                found[paths[id(weight)]] = LARGEST
    return found


def round_together(
    traced: Traced,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    make: Make,
    judges: int,
) -> str:
    """Makes a file anew with kernels of four bits rounded so that their layers' outputs stay.

    It takes the place of the file where its outputs are nearer to those of the float32 file.

    Args:
        traced: The model.
        path: A file that was made of it and runs; its weights have the nearest values.
        inputs: Examples (n, ...), an array an input.
        make: Makes the same file of another model of the same layers.
        judges: So many examples, the first ones, judge; the others are rounded on.

    Returns:
        What was done, or why not; nothing where no kernel has four bits.
    """
    kernels = four_bit_kernels(path, traced.model)
    if not kernels:
        return ""
    judging, rest = ([taken(part, rows) for part in inputs]
                     for rows in (slice(judges), slice(judges, None)))  # fmt: skip
    wanted = outputs_of(session_for(plain_file(traced)), judging)
    before = divergence(wanted, outputs_of(session_for(path), judging))
    try:
        model, report = rounded_model(traced.model, rest, kernels)
        with Traced(model) as again:
            file = again.place / "rounded.tflite"
            make(again, _units(again), file)
            after = divergence(wanted, outputs_of(running(file, judging), judging))
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


def _units(traced: Traced) -> tuple[Unit, ...]:
    return units_of(file_graph(plain_file(traced)), kernels_of(traced.model))


def rounded_model(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]], kernels: Mapping[str, int]
) -> tuple[keras.Model, RepairReport]:
    """Returns a copy of a model whose kernels lie on grids; what was zero stays zero.

    Args:
        model: Stays as it is.
        inputs: Examples (n, ...), an array an input.
        kernels: Path of a kernel -> the largest whole number of its grid.

    Raises:
        InputError: Fewer than 20 examples, or no layer that can be solved for.
    """
    made = copy_model(model)
    masks = {}
    for path, variable in variable_paths(made):
        full = np.asarray(variable.numpy()) != 0 if path in kernels else None
        if full is not None and full.any() and not full.all():
            masks[path] = full
    return made, repair(made, model, list(inputs), grids=kernels, masks=masks)
