"""Files written by LiteRT Quantizer: mixed precision, and 4-bit weights.

4-bit kernels are rounded to keep the outputs of their layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import take_examples
from compress.core.atomic_files import replace_file, write_bytes
from compress.core.errors import InputError, RunFailed
from compress.core.lazy_modules import keras
from compress.core.module_loading import FORMAT_PACKAGES, require_packages
from compress.exporting.conversions import ConversionFailed, convert, explain_failures
from compress.exporting.file_checks import open_session
from compress.exporting.litert import ensure_float32_file
from compress.exporting.mixed.search import (
    EquivalenceCheck,
    MixedLimits,
    PrecisionChoice,
    PrecisionFiles,
    PrecisionSearch,
)
from compress.exporting.mixed.units import (
    BITS,
    INT4_WEIGHTS,
    INT8,
    find_kernel,
    find_kernel_layers,
    find_layer,
    format_scope,
    group_operations,
    read_graph,
)
from compress.exporting.tracing import TracedModel
from compress.measure.file_agreement import compute_divergence, compute_outputs
from compress.measure.runtimes import prepare_session
from compress.model.copies import copy_model
from compress.model.keras_internals import list_named_weights, walk_named_layers
from compress.plan.output import INT4, MIXED
from compress.reconstruction import RepairReport, repair
from compress.reconstruction.kernel_parts import has_parts

ENGINE = "LiteRT Quantizer"
LOSS_EXAMPLES = 64
"""Number of examples on which losses are measured."""
SHOWN = 5


def write_mixed(
    traced: TracedModel,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
    limits: MixedLimits,
    on_progress: Callable[[float], None],
    equivalence_check: EquivalenceCheck,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Write a `.tflite` file with one precision per layer, in one atomic step.

    The loss of each layer is measured at each precision, with all others in float32. Losses and
    costs (bytes, and time by multiply-accumulates) of layers are assumed to add up. Files are then
    written and measured between the cheapest and the most expensive choice. The result is the
    cheapest file with a small enough loss, or the most expensive one within the limits.

    Args:
        traced: The model.
        path: Path of the file, ending in `.tflite`.
        inputs: Calibration examples (n, ...), one array per input. All of them set the ranges, the
            first `LOSS_EXAMPLES` measure the losses. No labels are needed.
        limits: See `PrecisionSearch`.
        on_progress: Callback invoked with the completed share, in [0, 1].
        equivalence_check: See `PrecisionSearch`.

    Returns:
        The precision of each layer, and notes.

    Raises:
        MissingDependency: LiteRT Quantizer is not installed.
        RunFailed: The model cannot be converted, or no file is within the limits.
    """
    require_packages(FORMAT_PACKAGES[MIXED], f"format {MIXED}")
    graph = read_graph(ensure_float32_file(traced))
    units = group_operations(graph, find_kernel_layers(traced.model))
    if not units:
        raise RunFailed(f"Model '{traced.model.name}' has no operation that could be {MIXED}.")
    folder = traced.directory / "mixed"
    folder.mkdir(exist_ok=True)
    with explain_failures(ENGINE, MIXED, traced.model):
        files = PrecisionFiles(traced, folder, inputs, units, LOSS_EXAMPLES)
        search = PrecisionSearch(files, limits, on_progress, equivalence_check)
        result = search.run()
        write_bytes(path, result.path.read_bytes())
    layers = _collect_layers(result)
    return layers, _describe_layers(layers, result, min(LOSS_EXAMPLES, len(inputs[0])))


def write_int4(
    traced: TracedModel, path: Path, inputs: Sequence[npt.NDArray[Any]]
) -> tuple[str, ...]:
    """Write a `.tflite` file with 4-bit kernels and float32 activations.

    Each channel has one scale. Kernels that no runtime supports in 4 bits have 8 bits. Weights are
    rounded to keep the outputs of their layers (see `compress.reconstruction.rounding`) if this
    brings the file's outputs closer to those of the float32 file.

    Args:
        traced: The model.
        path: Path of the file, ending in `.tflite`.
        inputs: Examples (n, ...), one array per input. The first `LOSS_EXAMPLES` compare both
            roundings, the others are used for rounding. No labels are needed.

    Returns:
        Notes.

    Raises:
        MissingDependency: LiteRT Quantizer is not installed.
        RunFailed: The model cannot be converted.
    """
    require_packages(FORMAT_PACKAGES[INT4], f"format {INT4}")
    with explain_failures(ENGINE, INT4, traced.model):
        with replace_file(path) as temporary:
            _convert_int4(traced, temporary)
            open_session(temporary, inputs)
        rounding_note = round_together(traced, path, inputs)
    return (f"{INT4}: {rounding_note or 'no kernel has four bits'}",)


@dataclass(frozen=True)
class LayerPrecision:
    """Precision of one layer in a file.

    Attributes:
        layer: Path of the layer in the model.
        precision: "int8", "dynamic" (the same weights, activations quantized dynamically),
            "float16" (weights, computed in float32) or "float32".
        alone: By precision: divergence of the outputs if only this layer has it; see
            `compress.measure.file_agreement`.
        floats: Kinds of its operations that stay in float in spite of an integer precision, because
            LiteRT Quantizer does not support them or CPUs are slower with integers.
    """

    layer: str
    precision: str
    alone: dict[str, float]
    floats: tuple[str, ...] = ()


def _collect_layers(result: PrecisionChoice) -> tuple[LayerPrecision, ...]:
    """Return the precision of each layer in the selected file, in the model's order."""
    floats = {
        format_scope(item): item.kind.lower()
        for item in read_graph(result.path).operators
        if not any(tensor.is_quantized for tensor in item.outputs)
    }
    layers = []
    for unit, level in result.levels.items():
        kinds = {floats[scope] for scope in unit.scopes if scope in floats and level == INT8}
        unit_losses = dict(result.unit_losses[unit])
        layers.append(LayerPrecision(unit.name, level, unit_losses, tuple(sorted(kinds))))
    return tuple(layers)


def _describe_layers(
    layers: Sequence[LayerPrecision], result: PrecisionChoice, examples: int
) -> tuple[str, ...]:
    """Return notes on the precisions of layers, with reasons.

    Args:
        layers: Precisions of the layers.
        result: The selected file.
        examples: Number of examples on which losses were measured.
    """
    counts = Counter(item.precision for item in layers)
    counts_text = ", ".join(f"{counts[level]} in {level}" for level in BITS if counts[level])
    remaining_loss = f"{result.loss / result.int8_loss:.0%}" if result.int8_loss else "none"
    lines = [
        f"{MIXED}: of {len(layers)} layers {counts_text}; {remaining_loss} is left of what the "
        f"outputs lose where all are {INT8} (measured on {examples} training examples)"
    ]
    raised = [item for item in layers if item.precision != INT8]
    raised.sort(key=lambda item: -item.alone.get(INT8, 0.0))
    total = sum(item.alone.get(INT8, 0.0) for item in layers)
    for item in raised[:SHOWN]:
        share = item.alone.get(INT8, 0.0) / total if total else 0.0
        lines.append(
            f"{MIXED}: '{item.layer}' is {item.precision}: {INT8} there makes {share:.0%} "
            "of what layers lose one by one"
        )
    if len(raised) > SHOWN:
        lines.append(f"{MIXED}: {len(raised) - SHOWN} more layers are not {INT8}")
    kinds = sorted({kind for item in layers for kind in item.floats})
    if kinds:
        lines.append(
            f"{MIXED}: {', '.join(kinds)} stay in floats: LiteRT Quantizer has no integers "
            "for them, or CPUs are slower with them (products of activations, statistics)"
        )
    return (*lines, *result.notes)


def round_together(
    traced: TracedModel,
    path: Path,
    inputs: Sequence[npt.NDArray[Any]],
) -> str:
    """Write an int4-weights file again with kernels rounded together, if that improves its outputs.

    Kernels are rounded to keep the outputs of their layers. The new file replaces the old one if
    its outputs are closer to those of the float32 file.

    Args:
        traced: The model.
        path: A working file of the model, with weights rounded to the nearest values.
        inputs: Examples (n, ...), one array per input. The first `LOSS_EXAMPLES` compare both
            files, the others are used for rounding.

    Returns:
        Note on the rounding; "" if no kernel has 4 bits.
    """
    kernels = find_int4_kernels(path, traced.model)
    if not kernels:
        return ""
    evaluation_inputs, rounding_inputs = ([take_examples(part, rows) for part in inputs]
                     for rows in (slice(LOSS_EXAMPLES), slice(LOSS_EXAMPLES, None)))  # fmt: skip
    reference = compute_outputs(prepare_session(ensure_float32_file(traced)), evaluation_inputs)
    divergence_before = compute_divergence(
        reference, compute_outputs(prepare_session(path), evaluation_inputs)
    )
    try:
        model, report = round_model(traced.model, rounding_inputs, kernels)
        with TracedModel(model) as retraced:
            file = retraced.directory / "rounded.tflite"
            _convert_int4(retraced, file)
            divergence_after = compute_divergence(
                reference, compute_outputs(open_session(file, evaluation_inputs), evaluation_inputs)
            )
            if divergence_after < divergence_before:
                write_bytes(path, file.read_bytes())
    except (InputError, ConversionFailed) as error:  # keep the file with the nearest values
        return f"kernels of four bits have the nearest values ({error})"
    description = (
        f"{len(kernels)} kernels of four bits are rounded so that their layers' outputs stay (on "
        f"{report.examples} training examples); the file's outputs move by {divergence_after:.3g} "
        f"instead of {divergence_before:.3g} (divergence, on {len(evaluation_inputs[0])} others)"
    )
    rejection = ": that is no better, so weights have the nearest values"
    return description if divergence_after < divergence_before else f"{description}{rejection}"


def find_int4_kernels(path: Path, model: keras.Model) -> dict[str, int]:
    """Return the kernels that a file holds in 4 bits, with the largest integer of their grids.

    Kernels that cannot be reconstructed are left out; they keep the nearest values.

    Args:
        path: A `.tflite` file of the model.
        model: The model.

    Returns:
        Path of a kernel -> largest integer.
    """
    layers, kernel_layers = dict(walk_named_layers(model)), find_kernel_layers(model)
    paths = {id(variable): path for path, variable in list_named_weights(model)}
    int4_kernels: dict[str, int] = {}
    for operator in read_graph(path).operators:
        kernel = find_kernel(operator)
        layer = layers.get(find_layer(operator, kernel_layers))
        if kernel is None or kernel.dtype != "int4" or layer is None or not has_parts(layer):
            continue
        for weight in layer.weights:
            if len(weight.shape) > 1 and int(np.prod(weight.shape)) == kernel.elements:
                int4_kernels[paths[id(weight)]] = 7  # symmetric 4-bit range
    return int4_kernels


def round_model(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]], kernels: Mapping[str, int]
) -> tuple[keras.Model, RepairReport]:
    """Return a copy of a model whose kernels lie on grids; zeros stay zeros.

    Args:
        model: The original model; it is not changed.
        inputs: Calibration examples (n, ...), one array per input.
        kernels: Path of a kernel -> largest integer of its grid.

    Returns:
        The copy, and the report of the reconstruction.

    Raises:
        InputError: There are fewer than 20 examples, or no layer can be reconstructed.
    """
    rounded = copy_model(model)
    nonzero = {
        path: np.asarray(variable.numpy()) != 0
        for path, variable in list_named_weights(rounded) if path in kernels
    }  # fmt: skip
    masks = {path: mask for path, mask in nonzero.items() if mask.any() and not mask.all()}
    return rounded, repair(rounded, model, list(inputs), grids=kernels, masks=masks)


def _convert_int4(traced: TracedModel, path: Path) -> None:
    source = str(ensure_float32_file(traced))
    convert("mixed", source=source, path=str(path), ranges=None, recipe=INT4_WEIGHTS)
