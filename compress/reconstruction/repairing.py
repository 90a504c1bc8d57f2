"""`repair`: refits a pruned model to the dense one on unlabelled examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.arrays import rows_of
from compress.core.errors import InputError
from compress.model.internals import variable_paths
from compress.model.io import as_model
from compress.model.ports import input_names, listed
from compress.model.program import Program, flat
from compress.model.recording import record
from compress.reconstruction.attention import narrowed
from compress.reconstruction.lockstep import Lockstep
from compress.reconstruction.matching import Match, Order, joined, matched, opens
from compress.reconstruction.report import RepairReport
from compress.reconstruction.sampling import SAMPLES, Batches, Sampler
from compress.reconstruction.values import chunk_size

if TYPE_CHECKING:
    import keras

KeptAxes = Mapping[str, tuple[npt.NDArray[np.int64] | None, ...]]
Masks = Mapping[str, npt.NDArray[np.bool_]]
Grids = Mapping[str, int]
HELD = 0.2
"""Share of the examples that is held back: it chooses ridges and tells whether they help."""
FEWEST = 20
EXAMPLES = 1000
"""Of more, so many are drawn."""


@check_arguments()
def repair(
    pruned: keras.Model,
    dense: keras.Model | str | Path,
    x: Any,
    *,
    kept: KeptAxes | None = None,
    masks: Masks | None = None,
    grids: Grids | None = None,
    examples: int = EXAMPLES,
    samples: int = SAMPLES,
    joint: bool = True,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> RepairReport:
    """Refit a pruned model's kernels so that its layers compute what the dense model's did.

    Both models run side by side on unlabelled examples. Before a layer of the pruned model is
    called, its kernel is solved for by ridge regression: its inputs are those that the pruned
    and so far repaired model makes, its targets what the dense layer makes of its own inputs. No
    labels and no gradients are needed. A layer whose solution is no better on examples held back
    keeps its weights.

    Args:
        pruned: The smaller model; its weights are changed in place.
        dense: What it was pruned from, or the path of its file; it stays as it is.
        x: Examples as the models take them: an array; for several inputs a list of arrays, or a
            dictionary by their names.
        kept: Kept indices of the dense model's weights, as `prune_channels` returns them
            (`PruneResult.kept`); default: layers have the shapes that they had.
        masks: Path of a weight of the pruned model -> where it may differ from zero; weights
            that are not named may do so everywhere.
        grids: Path of a kernel of the pruned model -> the largest whole number of the grid on
            which it is put, 7 for weights of four bits: each output's weights become whole
            numbers of -7 to 7 times a step of its own. Kernels are not solved for in pairs then.
        examples: Of more, so many are drawn; at least 20.
        samples: Positions to look at, of all examples together, for each layer.
        joint: Whether two kernels in a row, with nothing but elements between them, are solved
            together after that: about a third fewer points were lost, in about twice the time.
        seed: Of what is drawn, at least 0.
        on_progress: Called with (text, share that is done).

    Shapes:
        x: (n, ...), as the models take them.

    Returns:
        What was done, layer by layer.

    Raises:
        InputError: Fewer than 20 examples, NaN, shapes that do not fit, models that do not
            belong together, a mask without any weight left, or a grid of nothing.

    Example:
        >>> small = prune_channels(model, macs=0.5, repair=False)
        >>> report = repair(small.model, model, x, kept=small.kept)
        >>> report.output_error[0][1] < report.output_error[0][0]
        True

    Reference:
        He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 1,
        solved in the order of the graph; towards the weights that are there instead of zero, with
        means moved, the ridge chosen on held-back examples, and the errors of shortcuts taken
        over. Masked weights: Frantar & Alistarh 2022, "Optimal Brain Compression", eq. 3. Grids:
        Frantar et al. 2023, "GPTQ", eq. 2 and 3, from the solution instead of the weights that
        are there.
    """
    began = time.perf_counter()
    dense = as_model(dense)
    if pruned is dense:
        raise InputError(
            "A repair must have another model than the dense one. Received: the same twice. "
            "Repair a copy."
        )
    for name, value, least in (("samples", samples, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name} must be at least {least}. Received: {value}.")
    programs = flat(record(pruned, opens)), flat(record(dense, opens))
    arrays = _checked(x, *programs, examples, seed)
    matches, left_out = matched(*programs)
    order = Order(programs[0])
    left_out += joined(order, matches)
    kept_of, mask_of, grid_of = _indices(dense, kept), _masks(pruned, masks), _grids(pruned, grids)
    for match in matches.values():
        _check_shapes(match, kept_of)
    left_out += narrowed(pruned, order, matches, kept_of, mask_of)
    batches = _batches(arrays, programs)
    saved = [(weight, weight.numpy()) for weight in pruned.weights]

    def told(name: str, share: float) -> None:
        if on_progress is not None:
            on_progress(f"repairing {name}", share)

    lockstep = Lockstep(
        programs, matches, order, Sampler(kept_of, batches, seed, samples),
        mask=mask_of, grid=grid_of, joint=joint and not grids, on_layer=told,
    )  # fmt: skip
    try:
        for weight, value in saved:
            mask = mask_of(weight)
            if mask is not None:
                weight.assign(value * mask)
        before = _outputs_of(programs[0], batches)
        outputs, wanted = lockstep.run()
    except BaseException:
        for weight, value in saved:
            weight.assign(value)
        raise
    errors = []
    for old, now, made in zip(before, outputs, wanted, strict=True):
        if now.shape != made.shape:
            continue
        target = made.astype(np.float64)
        spread = float(((target - target.mean(0)) ** 2).sum()) or 1.0
        first, second = (float(((side - target) ** 2).sum()) / spread for side in (old, now))
        errors.append((first, second))
    count = sum(stop - start for (start, stop), hold in zip(batches.bounds, batches.held,
                                                            strict=True) if hold)  # fmt: skip
    return RepairReport(
        (*lockstep.rows, *left_out),
        batches.count,
        count,
        time.perf_counter() - began,
        tuple(errors),
    )


def repaired_on(asked: bool | int, data: Any) -> int:
    """Return on how many examples a repair is made that a keyword asks for; 0: none is.

    Raises:
        InputError: It is asked for without data, or on too few.
    """
    count = EXAMPLES if asked is True else int(asked)
    if count and data is None:
        raise InputError("repair must have data to look at. Give data=.")
    if count < 0 or 0 < count < FEWEST:
        raise InputError(f"repair must be 0 or at least {FEWEST} examples. Received: {count}.")
    return count


def _checked(
    x: Any, pruned: Program, dense: Program, examples: int, seed: int
) -> tuple[npt.NDArray[Any], ...]:
    """Return arrays of a random selection of examples, in random order."""
    import keras

    shapes = [[tuple(tensor.shape)[1:] for tensor in program.inputs] for program in (dense, pruned)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The pruned model must have the inputs of the dense one, {shapes[0]}. Received: "
            f"{shapes[1]}. Give the model that it was pruned from."
        )
    # by name where there are names: flattening would sort them
    named = isinstance(x, Mapping) and set(x) == set(input_names(dense.model))
    parts = listed(dense.model, x) if named else keras.tree.flatten(x)
    arrays = tuple(np.asarray(part) for part in parts)
    if len(arrays) != len(dense.inputs):
        raise InputError(
            f"Examples must be one array for each of the model's {len(dense.inputs)} inputs. "
            f"Received: {len(arrays)}."
        )
    counts = {len(part) for part in arrays}
    if len(counts) != 1 or min(counts) < FEWEST or examples < FEWEST:
        raise InputError(
            f"A repair must have at least {FEWEST} examples, as many for every input. Received: "
            f"{', '.join(map(str, sorted(counts)))}"
            + (f" (examples={examples})." if examples < FEWEST else ".")
        )
    for part, tensor, wanted in zip(arrays, dense.inputs, shapes[0], strict=True):
        given = part.shape[1:]
        fits = len(wanted) == len(given) and all(
            size in (None, other) for size, other in zip(wanted, given, strict=True)
        )
        if not fits:
            raise InputError(
                f"Examples must have the model's input shape {wanted}. Received: {given}."
            )
        if part.dtype.kind in "OUSMm" and str(tensor.dtype) != "string":
            raise InputError(f"Examples must be numbers. Received: {part.dtype}.")
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            raise InputError("Examples must be finite. Received: NaN or infinity.")
    order = np.random.default_rng(seed).permutation(min(counts))[:examples]
    # programs do not cast what they are given, as models do
    return tuple(
        rows_of(part, order).astype(np.dtype(tensor.dtype), copy=False)
        if part.dtype.kind in "fiub"
        else part[order]
        for part, tensor in zip(arrays, dense.inputs, strict=True)
    )  # fmt: skip


def _indices(
    dense: keras.Model, kept: KeptAxes | None
) -> Callable[[Any, int], npt.NDArray[np.int64] | None]:
    if kept is None:
        return lambda *_: None
    paths = {id(variable): path for path, variable in variable_paths(dense)}
    shapes = {path: tuple(variable.shape) for path, variable in variable_paths(dense)}
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

    def found(variable: Any, axis: int) -> npt.NDArray[np.int64] | None:
        axes = kept.get(paths[id(variable)])
        return None if axes is None else axes[axis]

    return found


def _masks(
    pruned: keras.Model, masks: Masks | None
) -> Callable[[Any], npt.NDArray[np.bool_] | None]:
    masks = masks or {}
    by_path = dict(variable_paths(pruned)) if masks else {}
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


def _grids(pruned: keras.Model, grids: Grids | None) -> Callable[[Any], int]:
    grids = grids or {}
    by_path = dict(variable_paths(pruned)) if grids else {}
    for path, most in grids.items():
        if path not in by_path or len(by_path[path].shape) < 2 or most < 1:
            raise InputError(
                "A grid must name a kernel of the pruned model, and its largest whole number be "
                f"at least 1. Received: '{path}', {most}."
            )
    by_id = {id(by_path[path]): most for path, most in grids.items()}
    return lambda variable: by_id.get(id(variable), 0)


def _check_shapes(match: Match, kept_of: Callable[[Any, int], Any]) -> None:
    """Check that a matched layer's kernels are what is kept of the dense one's."""
    mine, dense = (
        [variable for part in parts for variable in part.variables]
        for parts in (match.parts, match.twins)
    )
    for own, theirs in zip(mine, dense, strict=True):
        kept = [kept_of(theirs, axis) for axis in range(len(theirs.shape))]
        wanted = tuple(
            size if indices is None else len(indices)
            for size, indices in zip(theirs.shape, kept, strict=True)
        )
        shape = tuple(own.shape)
        if 0 in shape or 0 in wanted:
            raise InputError(
                f"Layer '{match.name}' must keep at least one channel. Received: {wanted}."
            )
        if wanted != shape:
            raise InputError(
                f"Layer '{match.name}' must have the kept part of the dense layer's kernel, "
                f"{wanted}. Received: {shape}. Give kept= of the pruning that made it."
            )


def _batches(arrays: Sequence[npt.NDArray[Any]], programs: Sequence[Program]) -> Batches:
    """Cut examples into chunks whose largest tensor stays small; the last part is held back."""
    count = len(arrays[0])
    size = chunk_size(programs)
    held = max(2, round(count * HELD))
    fixed = max(tensor.shape[0] or 0 for tensor in programs[1].inputs)
    if fixed:  # the model takes batches of this size alone
        if count < 2 * fixed:
            raise InputError(
                f"A repair must have at least two of the model's batches of {fixed} examples, "
                f"{2 * fixed}. Received: {count}."
            )
        size = fixed
        held = fixed * max(1, held // fixed)
        count = fixed * (count // fixed)
    bounds, flags = [], []
    for start, stop, hold in ((0, count - held, False), (count - held, count, True)):
        for begin in range(start, stop, size):
            bounds.append((begin, min(begin + size, stop)))
            flags.append(hold)
    return Batches(tuple(arrays), tuple(bounds), tuple(flags), count)


def _outputs_of(program: Program, batches: Batches) -> list[npt.NDArray[Any]]:
    """Return what a model makes of the examples held back, output by output."""
    parts = [
        program.run([x[start:stop] for x in batches.inputs])
        for (start, stop), hold in zip(batches.bounds, batches.held, strict=True)
        if hold
    ]
    return [np.concatenate([np.asarray(part) for part in out]) for out in zip(*parts, strict=True)]
