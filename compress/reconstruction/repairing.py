"""`repair`: reconstruction of a pruned model's weights from unlabelled examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.arrays import take_rows
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.core.linux import keep_freed_memory
from compress.model.io import as_model
from compress.model.keras_internals import list_named_weights
from compress.model.layer_patches import use_fused_batch_norm
from compress.model.ports import flatten_inputs, list_input_names
from compress.model.program import Program, flatten_program
from compress.model.recording import record_program
from compress.reconstruction.attention import group_narrow_heads
from compress.reconstruction.matching import (
    CallOrder,
    Match,
    match_layers,
    merge_repeated_calls,
    should_open,
)
from compress.reconstruction.reconstructor import Reconstructor
from compress.reconstruction.report import RepairReport
from compress.reconstruction.sampling import MAX_SAMPLES, Batches, RecordedOutputs, Sampler
from compress.reconstruction.tensor_store import compute_chunk_size

KeptAxes = Mapping[str, tuple[npt.NDArray[np.int64] | None, ...]]
Masks = Mapping[str, npt.NDArray[np.bool_]]
Grids = Mapping[str, int]
HOLDOUT_SHARE = 0.2
"""Share of the examples held out to choose the ridges and to accept or reject solutions."""
MIN_EXAMPLES = 20
"""Minimum number of calibration examples."""
DEFAULT_EXAMPLES = 1000
"""Maximum number of calibration examples that are drawn."""


@check_arguments()
def repair(
    pruned: keras.Model,
    dense: keras.Model | str | Path,
    x: Any,
    *,
    kept: KeptAxes | None = None,
    masks: Masks | None = None,
    grids: Grids | None = None,
    examples: int = DEFAULT_EXAMPLES,
    samples: int = MAX_SAMPLES,
    joint: bool = True,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> RepairReport:
    """Reconstruct a pruned model's weights by layer-wise least squares on unlabelled examples.

    Both models run side by side on the calibration examples. Before a layer of the pruned model is
    called, its kernel is fitted by ridge regression. The inputs come from the pruned model with all
    previous layers already reconstructed; the targets are the outputs of the original layer for its
    own inputs. Neither labels nor gradients are needed. A layer keeps its weights if the solution
    has no lower error on held-out examples.

    Args:
        pruned: The pruned model; its weights are changed in place.
        dense: The original model, or the path of its file; it is not changed.
        x: Calibration examples as model inputs: an array, or for several inputs a list of arrays or
            a dictionary by input name.
        kept: Kept indices of the original model's weights, as `prune_channels` returns them
            (`PruneResult.kept`); default: the layer shapes are unchanged.
        masks: Path of a weight of the pruned model -> boolean array, True where it may differ from
            zero; weights that are not named are not masked.
        grids: Path of a kernel of the pruned model -> the largest integer of its quantization grid,
            such as 7 for int4: the weights of each output become integers from -7 to 7 times a
            step. Pairs of kernels are not reconstructed jointly then.
        examples: Maximum number of examples that are drawn, at least 20.
        samples: Maximum number of positions sampled per layer, over all examples, at least 1. Small
            layers take fewer: 16 for each input of a kernel, at least 8,000.
        joint: Whether pairs of consecutive kernels with only elementwise operations between them
            are then reconstructed jointly: this reduced the accuracy drop by about a third, in
            about twice the time.
        seed: Seed of all random draws, at least 0.
        on_progress: Called before each layer with (text, share of the calls that are done).

    Shapes:
        x: (n, ...), as the models take them.

    Returns:
        The report, layer by layer.

    Raises:
        InputError: There are fewer than 20 examples, they contain NaN or infinity, shapes do not
            fit, the models do not belong together or are the same one, a mask removes all weights,
            a mask or grid names no fitting weight, or an argument is too small.

    Example:
        >>> small = prune_channels(model, macs=0.5, repair=False)
        >>> report = repair(small.model, model, x, kept=small.kept)
        >>> report.output_error[0][1] < report.output_error[0][0]
        True

    Reference:
        He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 1, in the
        order of the graph. Differences: ridge regression towards the current weights instead of
        zero, free shifts, a ridge chosen on held-out examples, and compensation of the errors of
        shortcuts. Masked weights: Frantar & Alistarh 2022, "Optimal Brain Compression", eq. 3.
        Grids: Frantar et al. 2023, "GPTQ", eq. 2 and 3, starting from the least-squares solution
        instead of the current weights.
    """
    return reconstruct(
        pruned, dense, x, kept=kept, masks=masks, grids=grids, examples=examples, samples=samples,
        joint=joint, seed=seed, on_progress=on_progress,
    )  # fmt: skip


def reconstruct(
    pruned: keras.Model,
    dense: keras.Model | str | Path,
    x: Any,
    *,
    kept: KeptAxes | None,
    examples: int,
    samples: int,
    joint: bool,
    seed: int,
    masks: Masks | None = None,
    grids: Grids | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    recorded: RecordedOutputs | None = None,
) -> RepairReport:
    """Reconstruct a pruned model as `repair` does, with recorded outputs of the original model.

    Args:
        pruned, dense, x, kept, examples, samples, joint, seed, masks, grids, on_progress: See
            `repair`.
        recorded: Outputs of the original model, which the first call records; later calls must
            have the same original, examples and seed. The report then lacks the errors of the
            outputs. None: they are not kept.
    """
    start_time = time.perf_counter()
    dense = as_model(dense)
    if pruned is dense:
        raise InputError(
            "A repair must have another model than the dense one. Received: the same twice. "
            "Repair a copy."
        )
    for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}. Received: {value}.")
    programs = (
        flatten_program(record_program(pruned, should_open)),
        flatten_program(record_program(dense, should_open)),
    )
    arrays = _select_examples(x, *programs, examples, seed)
    matches, left_out = match_layers(*programs)
    order = CallOrder(programs[0])
    left_out += merge_repeated_calls(order, matches)
    kept_of, mask_of, grid_of = (
        _build_kept_lookup(dense, kept),
        _build_mask_lookup(pruned, masks),
        _build_grid_lookup(pruned, grids),
    )
    for match in matches.values():
        _check_shapes(match, kept_of)
    left_out += group_narrow_heads(pruned, order, matches, kept_of, mask_of)
    batches = _split_batches(arrays, programs)
    saved = [(weight, weight.numpy()) for weight in pruned.weights]

    def report_progress(name: str, share: float) -> None:
        if on_progress is not None:
            on_progress(f"repairing {name}", share)

    reconstructor = Reconstructor(
        programs, matches, order, Sampler(kept_of, batches, seed, samples),
        mask=mask_of, grid=grid_of, joint=joint and not grids, recorded=recorded,
        on_layer=report_progress,
    )  # fmt: skip
    try:
        for weight, value in saved:
            mask = mask_of(weight)
            if mask is not None:
                weight.assign(value * mask)
        # a reconstruction with recorded outputs is one of many: its report is not read
        with keep_freed_memory(), use_fused_batch_norm(pruned), use_fused_batch_norm(dense):
            outputs_before = (
                None if recorded is not None else _compute_outputs(programs[0], batches)
            )
            outputs, original_outputs = reconstructor.run()
    except BaseException:
        for weight, value in saved:
            weight.assign(value)
        raise
    errors = []
    for output_before, output_after, original_output in zip(
        outputs_before or (), outputs, original_outputs, strict=outputs_before is not None
    ):
        if output_after.shape != original_output.shape:
            continue
        target = original_output.astype(np.float64)
        spread = float(((target - target.mean(0)) ** 2).sum()) or 1.0
        error_before, error_after = (
            float(((side - target) ** 2).sum()) / spread for side in (output_before, output_after)
        )
        errors.append((error_before, error_after))
    count = sum(
        stop - start
        for (start, stop), is_held_out in zip(batches.bounds, batches.held_out, strict=True)
        if is_held_out
    )
    return RepairReport(
        (*reconstructor.layer_repairs, *left_out),
        batches.count,
        count,
        time.perf_counter() - start_time,
        tuple(errors),
    )


def count_repair_examples(requested: bool | int, data: Any) -> int:
    """Return the number of calibration examples that a `repair` argument requests; 0 for none.

    Args:
        requested: The number; True stands for the default number.
        data: The data; None: there are none.

    Raises:
        InputError: A repair is requested without data, or with too few examples.
    """
    count = DEFAULT_EXAMPLES if requested is True else int(requested)
    if count and data is None:
        raise InputError("repair must have data to look at. Give data=.")
    if count < 0 or 0 < count < MIN_EXAMPLES:
        raise InputError(
            f"repair must be 0 or at least {MIN_EXAMPLES} examples. Received: {count}."
        )
    return count


def _select_examples(
    x: Any, pruned: Program, original: Program, examples: int, seed: int
) -> tuple[npt.NDArray[Any], ...]:
    """Return the input arrays of randomly selected examples, in random order."""
    shapes = [
        [tuple(tensor.shape)[1:] for tensor in program.inputs] for program in (original, pruned)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The pruned model must have the inputs of the dense one, {shapes[0]}. Received: "
            f"{shapes[1]}. Give the model that it was pruned from."
        )
    parts = keras.tree.flatten(x)
    if isinstance(x, Mapping):
        # flattening sorts keys: right for those of the model's structure, not for input names
        structure = original.input_structure
        is_structure = isinstance(structure, Mapping) and set(structure) == set(x)
        if set(x) == set(list_input_names(original.model)) or not is_structure:
            parts = flatten_inputs(original.model, x)
    arrays = tuple(np.asarray(part) for part in parts)
    if len(arrays) != len(original.inputs):
        raise InputError(
            f"Examples must be one array for each of the model's {len(original.inputs)} inputs. "
            f"Received: {len(arrays)}."
        )
    counts = {len(part) for part in arrays}
    if len(counts) != 1 or min(counts) < MIN_EXAMPLES or examples < MIN_EXAMPLES:
        raise InputError(
            f"A repair must have at least {MIN_EXAMPLES} examples, as many for every input. "
            "Received: "
            f"{', '.join(map(str, sorted(counts)))}"
            + (f" (examples={examples})." if examples < MIN_EXAMPLES else ".")
        )
    for part, tensor, expected in zip(arrays, original.inputs, shapes[0], strict=True):
        shape = part.shape[1:]
        fits = len(expected) == len(shape) and all(
            size in (None, other) for size, other in zip(expected, shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"Examples must have the model's input shape {expected}. Received: {shape}."
            )
        if part.dtype.kind in "OUSMm" and str(tensor.dtype) != "string":
            raise InputError(f"Examples must be numbers. Received: {part.dtype}.")
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError("Examples must be finite. Received: NaN or infinity.")
    order = np.random.default_rng(seed).permutation(min(counts))[:examples]
    # unlike models, programs do not cast their inputs
    return tuple(
        take_rows(part, order).astype(np.dtype(tensor.dtype), copy=False)
        if part.dtype.kind in "fiub"
        else part[order]
        for part, tensor in zip(arrays, original.inputs, strict=True)
    )  # fmt: skip


def _build_kept_lookup(
    original: keras.Model, kept: KeptAxes | None
) -> Callable[[Any, int], npt.NDArray[np.int64] | None]:
    if kept is None:
        return lambda *_: None
    paths = {id(variable): path for path, variable in list_named_weights(original)}
    shapes = {path: tuple(variable.shape) for path, variable in list_named_weights(original)}
    remedy = "Give the model that was pruned, and its PruneResult.kept."
    for path, axes in kept.items():
        if path not in shapes:
            raise InputError(
                f"kept must name weights of the dense model. Received: '{path}'. {remedy}"
            )
        if len(axes) != len(shapes[path]):
            raise InputError(
                f"kept indices of '{path}' must be given for its {len(shapes[path])} axes. "
                f"Received: {len(axes)}. {remedy}"
            )
        for indices, size in zip(axes, shapes[path], strict=True):
            if (
                indices is not None
                and len(indices)
                and not 0 <= min(indices) <= max(indices) < size
            ):
                wrong = max(indices) if max(indices) >= size else min(indices)
                raise InputError(
                    f"kept indices of '{path}' must be in [0, {size}). Received: {wrong}. {remedy}"
                )

    def find_indices(variable: Any, axis: int) -> npt.NDArray[np.int64] | None:
        axes = kept.get(paths[id(variable)])
        return None if axes is None else axes[axis]

    return find_indices


def _build_mask_lookup(
    pruned: keras.Model, masks: Masks | None
) -> Callable[[Any], npt.NDArray[np.bool_] | None]:
    masks = masks or {}
    by_path = dict(list_named_weights(pruned)) if masks else {}
    for path, mask in masks.items():
        if path not in by_path or tuple(by_path[path].shape) != np.shape(mask):
            raise InputError(
                f"A mask must name a weight of the pruned model and have its shape. Received: "
                f"'{path}', {np.shape(mask)}."
            )
        if not np.any(mask):
            raise InputError(f"A mask must leave at least one weight. Received: none for '{path}'.")
    by_id = {id(by_path[path]): np.asarray(mask, bool) for path, mask in masks.items()}
    return lambda variable: by_id.get(id(variable))


def _build_grid_lookup(pruned: keras.Model, grids: Grids | None) -> Callable[[Any], int]:
    grids = grids or {}
    by_path = dict(list_named_weights(pruned)) if grids else {}
    for path, grid_max in grids.items():
        if path not in by_path or len(by_path[path].shape) < 2 or grid_max < 1:
            raise InputError(
                "A grid must name a kernel of the pruned model, and its largest integer be "
                f"at least 1. Received: '{path}', {grid_max}."
            )
    by_id = {id(by_path[path]): grid_max for path, grid_max in grids.items()}
    return lambda variable: by_id.get(id(variable), 0)


def _check_shapes(match: Match, kept_of: Callable[[Any, int], Any]) -> None:
    """Check that a layer's kernels have the shapes of the kept part of the original ones."""
    pruned_variables, original_variables = (
        [variable for part in parts for variable in part.variables]
        for parts in (match.parts, match.original_parts)
    )
    for pruned_variable, original_variable in zip(
        pruned_variables, original_variables, strict=True
    ):
        kept = [kept_of(original_variable, axis) for axis in range(len(original_variable.shape))]
        expected = tuple(
            size if indices is None else len(indices)
            for size, indices in zip(original_variable.shape, kept, strict=True)
        )
        shape = tuple(pruned_variable.shape)
        if 0 in shape or 0 in expected:
            raise InputError(
                f"Layer '{match.name}' must keep at least one channel. Received: {expected}."
            )
        if expected != shape:
            raise InputError(
                f"Layer '{match.name}' must have the kept part of the dense layer's kernel, "
                f"{expected}. Received: {shape}. Give kept= of the pruning that made it."
            )


def _split_batches(arrays: Sequence[npt.NDArray[Any]], programs: Sequence[Program]) -> Batches:
    """Split examples into chunks with small activation tensors; the last chunks are held out."""
    count = len(arrays[0])
    size = compute_chunk_size(programs)
    held_out_count = max(2, round(count * HOLDOUT_SHARE))
    fixed_size = max(tensor.shape[0] or 0 for tensor in programs[1].inputs)
    if fixed_size:  # the model accepts only this batch size
        if count < 2 * fixed_size:
            raise InputError(
                f"A repair must have at least two of the model's batches of {fixed_size} examples, "
                f"{2 * fixed_size}. Received: {count}."
            )
        size = fixed_size
        held_out_count = fixed_size * max(1, held_out_count // fixed_size)
        count = fixed_size * (count // fixed_size)
    first_held_out = count - held_out_count
    bounds = tuple(
        (begin, min(begin + size, stop))
        for start, stop in ((0, first_held_out), (first_held_out, count))
        for begin in range(start, stop, size)
    )
    held_out = tuple(begin >= first_held_out for begin, _ in bounds)
    return Batches(tuple(arrays), bounds, held_out, count)


def _compute_outputs(program: Program, batches: Batches) -> list[npt.NDArray[Any]]:
    """Return a model's outputs for the held-out examples, one array per output."""
    parts = [
        program.run([x[start:stop] for x in batches.inputs])
        for (start, stop), is_held_out in zip(batches.bounds, batches.held_out, strict=True)
        if is_held_out
    ]
    return [np.concatenate([np.asarray(part) for part in out]) for out in zip(*parts, strict=True)]
