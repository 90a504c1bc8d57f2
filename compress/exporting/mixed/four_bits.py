"""Kernels of four bits, rounded so that their layers' outputs stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.exporting.mixed.units import file_graph, kernel_of, kernels_of, owner_of
from compress.model.copies import copy_model
from compress.model.walk import named_layers, variable_paths
from compress.reconstruction import repair
from compress.reconstruction.kinds import has_parts

if TYPE_CHECKING:
    import keras

    from compress.reconstruction import RepairReport

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
